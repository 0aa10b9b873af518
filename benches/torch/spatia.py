"""SPATIA's encoder and generator in PyTorch, with our names, as a user of PyTorch would write them for a CPU: fused
attention, gathers of the kept patches, InfoNCE over the whole batch. `spatia_step.py` runs them.

Attention is `F.scaled_dot_product_attention`; channels are last in a patch, as ours, so that weights can be loaded.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm, GELU, dropout on weights and after each map."""

    def __init__(self, d, heads, dropout):
        super().__init__()
        self.self_attn = Attention(d, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.p = dropout

    def forward(self, x, mask):
        drop = lambda y: F.dropout(y, self.p, self.training and self.p > 0)  # noqa: E731
        x = x + drop(self.self_attn(self.norm1(x), mask))
        return x + drop(self.linear2(drop(F.gelu(self.linear1(self.norm2(x))))))


class Attention(nn.Module):
    def __init__(self, d, heads, dropout):
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = nn.Parameter(torch.zeros(3 * d, d)), nn.Parameter(torch.zeros(3 * d))
        self.out_proj = nn.Linear(d, d)
        self.heads, self.p = heads, dropout

    def forward(self, x, mask):
        b, n, d = x.shape
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, mask, self.p if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).reshape(b, n, d))


class CrossAttention(nn.Module):
    def __init__(self, d, d_y, heads, out="out"):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(d, d), nn.Linear(d_y, 2 * d), nn.Linear(d, d)
        self.heads = heads

    def forward(self, x, y, mask):
        (b, n, d), m = x.shape, y.shape[1]
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv(y).view(b, m, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(b, n, d))


class Encoder(nn.Module):
    def __init__(self, d, blocks, heads, dropout):
        super().__init__()
        self.layers = nn.ModuleList(Block(d, heads, dropout) for _ in range(blocks))

    def forward(self, x, mask=None):
        for layer in self.layers:
            x = layer(x, mask)
        return x


class ValueMlp(nn.Module):
    def __init__(self, d, dropout):
        super().__init__()
        self.linear1, self.norm, self.linear2 = nn.Linear(1, d), nn.LayerNorm(d), nn.Linear(d, d)
        self.p = dropout

    def forward(self, x):
        return self.linear2(F.dropout(F.relu(self.norm(self.linear1(x))), self.p, self.training and self.p > 0))


class GeneEncoder(nn.Module):
    def __init__(self, c, genes):
        super().__init__()
        g, d = c["gene"], c["gene"]["width"]
        self.table = nn.Parameter(torch.zeros(genes + 1, d))
        self.value, self.depth = ValueMlp(d, c["dropout"]), ValueMlp(d, c["dropout"])
        self.extra = nn.Parameter(torch.zeros(4, d))
        self.encoder = Encoder(d, g["blocks"], g["heads"], c["dropout"])
        self.norm = nn.LayerNorm(d, eps=1e-6)

    def forward(self, batch):
        embeddings = F.embedding(batch["genes"], self.table)
        genes = embeddings + self.value((100 * batch["values"]).clamp(0, 1e5).unsqueeze(2))
        depth = self.depth((torch.log1p(batch["depth"]) / math.log(2)).view(-1, 1, 1))
        extra = self.extra.expand(len(genes), -1, -1)
        tokens = torch.cat([extra[:, :1], extra[:, 1:2] + depth, extra[:, 2:], genes], 1)
        absent = F.pad(batch["padding"], (extra.shape[1], 0))
        return self.norm(self.encoder(tokens, ~absent[:, None, None])), embeddings, absent


def grid(side, width):
    omega = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    at = torch.arange(side, dtype=torch.float64)[:, None] * omega
    one = torch.cat([at.sin(), at.cos()], 1)
    columns, rows = one.repeat(side, 1), one.repeat_interleave(side, 0)
    return torch.cat([columns, rows], 1).float()


def rows(x, at):
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))


class ImageEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        i, e = c["image"], c["image"]["width"]
        self.patch = nn.Linear(i["patch"] ** 2 * 3, e)
        self.cls = nn.Parameter(torch.zeros(e))
        self.encoder = Encoder(e, i["blocks"], i["heads"], 0.0)
        self.norm = nn.LayerNorm(e)
        self.register_buffer("grid", grid(i["size"] // i["patch"], e), persistent=False)

    def forward(self, patches, kept):
        seen = self.patch(rows(patches, kept)) + self.grid[kept]
        cls = self.cls.expand(len(seen), 1, -1)
        return self.norm(self.encoder(torch.cat([cls, seen], 1)))


class ImageDecoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        i, w = c["image"], c["image"]["decoder"]["width"]
        self.embed = nn.Linear(i["width"], w)
        self.mask_token = nn.Parameter(torch.zeros(w))
        self.encoder = Encoder(w, i["decoder"]["blocks"], i["decoder"]["heads"], 0.0)
        self.norm = nn.LayerNorm(w)
        self.head = nn.Linear(w, i["patch"] ** 2 * 3)
        self.register_buffer("grid", F.pad(grid(i["size"] // i["patch"], w), (0, 0, 1, 0)), persistent=False)

    def forward(self, tokens, kept, hidden):
        seen = self.embed(tokens)
        n = len(self.grid)
        all_ = self.mask_token.expand(len(seen), n, -1)
        at = F.pad(kept + 1, (1, 0))[..., None].expand(-1, -1, seen.shape[2])
        decoded = self.encoder(all_.scatter(1, at, seen) + self.grid)
        return self.head(rows(self.norm(decoded), hidden + 1))


class Exchange(nn.Module):
    def __init__(self, d, other, heads):
        super().__init__()
        self.bridge, self.block = nn.Linear(other, d), FusionBlock(d, heads)

    def forward(self, x, other, mask):
        return self.block(x, self.bridge(other), mask)


class FusionBlock(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(d), CrossAttention(d, d, heads), nn.LayerNorm(d)
        self.linear1, self.linear2 = nn.Linear(d, d // 2), nn.Linear(d // 2, d)

    def forward(self, x, y, mask):
        z = x + self.attention(self.norm1(x), y, mask)
        return z + self.linear2(F.gelu(self.linear1(self.norm2(z))))


class Parts(nn.Module):
    """Named parts, for the names."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Context(nn.Module):
    """Niche and tissue: not run in the first stage, but there."""

    def __init__(self, h, level):
        super().__init__()
        self.encoder = Encoder(h, level["blocks"], level["heads"], 0.1)
        self.norm, self.position = nn.LayerNorm(h), nn.Linear(64, h)
        self.query = nn.Parameter(torch.zeros(h))


def zinb(x, mean, theta, logit):
    eps = 1e-8
    stay = theta * ((theta + eps).log() - (theta + mean + eps).log())
    inflated = F.softplus(-logit)
    zero = F.softplus(stay - logit)
    count = stay + x * ((mean + eps).log() - (theta + mean + eps).log())
    count = count + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    return inflated - torch.where(x < eps, zero, count - logit)


class Spatia(nn.Module):
    def __init__(self, c, genes, contrast_share=0.5):
        super().__init__()
        self.contrast_share = contrast_share
        h, d, e, w = c["h"], c["gene"]["width"], c["image"]["width"], c["contrast_width"]
        self.gene_encoder, self.image_encoder, self.image_decoder = GeneEncoder(c, genes), ImageEncoder(c), ImageDecoder(c)
        self.fusion = Parts(genes=Exchange(d, e, c["gene"]["heads"]), image=Exchange(e, d, c["image"]["heads"]))
        self.expression_decoder = Parts(
            linear1=nn.Linear(d, d), norm1=nn.LayerNorm(d), linear2=nn.Linear(d, d), norm2=nn.LayerNorm(d), head=nn.Linear(d, 3)
        )
        self.mvc = Parts(linear=nn.Linear(h, d), norm=nn.LayerNorm(d), bilinear=nn.Parameter(torch.zeros(3 * d, d)))
        self.contrast = Parts(genes=nn.Linear(d, w), image=nn.Linear(e, w), log_scale=nn.Parameter(torch.zeros(1)))
        self.cell_out = Parts(linear=nn.Linear(d + e, h), norm=nn.LayerNorm(h))
        self.niche = Parts(context=Context(h, c["niche"]), **({"image": nn.Linear(e, h)} if c.get("regions") else {}))
        self.tissue = Parts(context=Context(h, c["tissue"]))
        self.final_fusion = Parts(linear=nn.Linear(3 * h, h), norm=nn.LayerNorm(h))
        self.patch, self.size = c["image"]["patch"], c["image"]["size"]

    def forward(self, batch, weights):
        """The objective, and its terms."""
        b, side, p = len(batch["genes"]), self.size // self.patch, self.patch
        patches = batch["pixels"].view(b, 3, side, p, side, p).permute(0, 2, 4, 3, 5, 1).reshape(b, side * side, p * p * 3)
        tokens, embeddings, absent = self.gene_encoder(batch)
        image = self.image_encoder(patches, batch["kept"])
        gene_vector, image_vector = tokens[:, :4].mean(1), image[:, 1:].mean(1)
        genes = self.fusion.genes(tokens, image, None)
        fused = self.fusion.image(image, tokens, ~absent[:, None, None])
        both = torch.cat([genes[:, :4].mean(1), fused[:, 1:].mean(1)], 1)
        z = self.cell_out.norm(self.cell_out.linear(both))

        decoder = self.expression_decoder
        x = F.leaky_relu(decoder.norm1(decoder.linear1(genes[:, 4:])), 0.01)
        x = F.leaky_relu(decoder.norm2(decoder.linear2(x)), 0.01)
        of_tokens = self.unlikely(decoder.head(x), batch)
        forms = F.linear(self.mvc.norm(self.mvc.linear(z)), self.mvc.bilinear).view(b, 3, -1)
        of_vector = self.unlikely(embeddings @ forms.transpose(1, 2), batch)

        unit = F.normalize(genes[:, :4], dim=2)
        alike = (unit @ unit.transpose(1, 2)).abs() * (1 - torch.eye(4))

        painted = self.image_decoder(image, batch["kept"], batch["hidden"])
        target = rows(patches, batch["hidden"])
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
        off = (painted - target).square().mean(2)

        a = F.normalize(self.contrast.genes(gene_vector), dim=1)
        v = F.normalize(self.contrast.image(image_vector), dim=1)
        logits = a @ v.t() * self.contrast.log_scale.exp().clamp(max=100.0)
        partner = torch.arange(b)
        contrast = 0.5 * (F.cross_entropy(logits, partner) + F.cross_entropy(logits.t(), partner))
        terms = [of_tokens / weights[0], of_vector / weights[1], alike.sum() / 16 / weights[2], off.sum() / weights[3], contrast]
        return sum(w * t for w, t in zip([1.0, 1.0, 0.2, 1.0, self.contrast_share], terms)), terms

    def unlikely(self, parameters, batch):
        logits = parameters[..., 0].masked_fill(batch["padding"], -1e30)
        mean = logits.softmax(1) * batch["listed"][:, None]
        entries = zinb(batch["counts"], mean, parameters[..., 1].clamp(max=15).exp(), parameters[..., 2])
        return entries.masked_fill(batch["padding"], 0.0).sum()


class DitBlock(nn.Module):
    def __init__(self, d, condition, heads):
        super().__init__()
        self.ada_ln = nn.Linear(d, 6 * d)
        self.attn = Parts(qkv=nn.Linear(d, 3 * d), proj=nn.Linear(d, d))
        self.cross = Parts(q=nn.Linear(d, d), kv=nn.Linear(condition, 2 * d), proj=nn.Linear(d, d))
        self.mlp = Parts(fc1=nn.Linear(d, 4 * d), fc2=nn.Linear(4 * d, d))
        self.heads, self.d = heads, d

    def forward(self, x, c, tokens, mask):
        (b, n, d), s, h = x.shape, tokens.shape[1], self.heads
        shift, scale, gate, shift2, scale2, gate2 = self.ada_ln(c).unsqueeze(1).chunk(6, 2)
        norm = lambda y: F.layer_norm(y, (d,), eps=1e-6)  # noqa: E731
        q, k, v = self.attn.qkv(norm(x) * (1 + scale) + shift).view(b, n, 3, h, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.attn.proj(y) * gate
        q = self.cross.q(norm(x)).view(b, n, h, -1).transpose(1, 2)
        k, v = self.cross.kv(tokens).view(b, s, 2, h, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(b, n, d)
        x = x + self.cross.proj(y)
        y = self.mlp.fc2(F.gelu(self.mlp.fc1(norm(x) * (1 + scale2) + shift2), approximate="tanh"))
        return x + y * gate2


class Generator(nn.Module):
    """The frozen gene side, and the diffusion transformer without token merging."""

    def __init__(self, c, genes):
        super().__init__()
        e, t = c["encoder"], c["dit"]
        h, d, condition, p = e["h"], t["d"], t["condition"], t["patch"]
        self.encoder = Parts(
            gene_encoder=GeneEncoder(e, genes),
            cell_out=Parts(linear=nn.Linear(e["gene"]["width"] + e["image"]["width"], h), norm=nn.LayerNorm(h)),
            final_fusion=Parts(linear=nn.Linear(3 * h, h), norm=nn.LayerNorm(h)),
        )
        self.dit = Parts(
            x_embedder=nn.Linear(p * p * 3, d),
            t_embedder=Parts(fc1=nn.Linear(256, d), fc2=nn.Linear(d, d)),
            c_embedder=nn.Linear(condition, d),
            blocks=nn.ModuleList(DitBlock(d, condition, t["heads"]) for _ in range(t["blocks"])),
            final_layer=Parts(ada_ln=nn.Linear(d, 2 * d), linear=nn.Linear(d, p * p * 3)),
            null=Parts(token=nn.Parameter(torch.zeros(condition)), vector=nn.Parameter(torch.zeros(condition))),
        )
        self.encoder.requires_grad_(False).eval()
        self.patch, self.side, self.d, self.image_width = p, t["image"] // p, d, e["image"]["width"]
        self.register_buffer("at", grid(self.side, d), persistent=False)

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def condition(self, batch):
        with torch.no_grad():
            e = self.encoder
            tokens, _, absent = e.gene_encoder(batch)
            vector = tokens[:, :4].mean(1)
            z_cell = e.cell_out.norm(e.cell_out.linear(F.pad(vector, (0, self.image_width))))
            z = e.final_fusion.norm(e.final_fusion.linear(F.pad(z_cell, (0, 2 * z_cell.shape[1]))))
            top = min(64, batch["genes"].shape[1])
            return torch.cat([z[:, None], z_cell[:, None], tokens[:, : 4 + top]], 1), F.pad(absent[:, : 4 + top], (2, 0)), z_cell

    def forward(self, batch, weights):
        b, s, p, dit = len(batch["genes"]), self.side, self.patch, self.dit
        tokens, absent, vector = self.condition(batch)
        lost = batch["dropped"][:, None]
        first = torch.arange(tokens.shape[1]) > 0
        absent = torch.where(lost > 0, first, absent)
        tokens = tokens * (1 - lost[..., None]) + dit.null.token * lost[..., None]
        vector = vector * (1 - lost) + dit.null.vector * lost
        half = 10_000.0 ** -(torch.arange(128) / 128)
        angles = 1000 * batch["times"][:, None] * half
        time = dit.t_embedder.fc2(F.silu(dit.t_embedder.fc1(torch.cat([angles.cos(), angles.sin()], 1))))
        c = F.silu(time + dit.c_embedder(vector))
        patches = lambda x: x.view(b, s, p, s, p * 3).transpose(2, 3).reshape(b, s * s, p * p * 3)  # noqa: E731
        image, noise = patches(batch["pixels"]), patches(batch["noise"])
        t = batch["times"][:, None, None]
        x = dit.x_embedder(noise * (1 - t) + image * t) + self.at
        mask = ~absent[:, None, None]
        for block in dit.blocks:
            x = block(x, c, tokens, mask)
        shift, scale = dit.final_layer.ada_ln(c).unsqueeze(1).chunk(2, 2)
        said = dit.final_layer.linear(F.layer_norm(x, (self.d,), eps=1e-6) * (1 + scale) + shift)
        flow = (said - (image - noise)).square().mean((1, 2)).sum() / weights[0]
        return flow, [flow]
