"""SpotDiff's second stage in PyTorch, with our names, as a user of PyTorch would write it for a CPU: fused attention, prompts
mapped before they are looked up. `spotdiff_step.py` runs it.
"""

import torch
from torch import nn
from torch.nn import functional as F

BUCKETS = 16


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.heads = heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class FeedForward(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def norm(x, shift, scale):
    return F.layer_norm(x, x.shape[2:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """adaLN-zero."""

    def __init__(self, d, heads, dropout):
        super().__init__()
        self.ada_ln, self.attn, self.mlp = nn.Linear(d, 6 * d), Attention(d, heads), FeedForward(d)
        self.p = dropout

    def forward(self, x, c):
        shift, scale, gate, shift2, scale2, gate2 = self.ada_ln(c).unsqueeze(1).chunk(6, 2)
        drop = lambda y: F.dropout(y, self.p, self.training and self.p > 0)  # noqa: E731
        x = x + drop(self.attn(norm(x, shift, scale))) * gate
        return x + drop(self.mlp(norm(x, shift2, scale2))) * gate2


class Time(nn.Module):
    def __init__(self, d, steps):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(256, d), nn.Linear(d, d)
        self.steps = steps
        self.register_buffer("slower", 10_000.0 ** -(torch.arange(128, dtype=torch.float64) / 128), persistent=False)

    def forward(self, times):
        angles = 1000 * times.double()[:, None] / self.steps * self.slower
        return self.fc2(F.silu(self.fc1(torch.cat([angles.cos(), angles.sin()], 1).float())))


class Tables(nn.Module):
    def __init__(self, genes, width):
        super().__init__()
        self.genes, self.values = nn.Parameter(torch.zeros(genes, width)), nn.Parameter(torch.zeros(BUCKETS, width))


class Prompt(nn.Module):
    """Named genes attend to all genes; the map of a sum is the sum of maps, so the tables are mapped and not the tokens."""

    def __init__(self, c, genes, d):
        super().__init__()
        width, attention = c["width"], c["attention"]
        self.tables = Tables(genes, width)
        self.spot, self.gene = nn.Parameter(torch.zeros(attention, width)), nn.Parameter(torch.zeros(attention, width))
        self.out = nn.Linear(attention, d)
        self.heads = c["heads"]

    def forward(self, batch):
        b, n = batch["genes"].shape
        mapped = lambda table: F.linear(table, self.spot)  # noqa: E731
        q = F.embedding(batch["genes"], mapped(self.tables.genes)) + F.embedding(batch["buckets"], mapped(self.tables.values))
        split = lambda x: x.view(1, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)  # noqa: E731
        k = split(F.linear(self.tables.genes, self.gene))
        mixed = F.scaled_dot_product_attention(split(q), k, k).transpose(1, 2).reshape(b, n, -1)
        return self.out((mixed * batch["shares"][..., None]).sum(1))


class Psi(nn.Module):
    def __init__(self, c, genes, steps):
        super().__init__()
        d, self.genes = c["d"], genes
        patch = next(p for most, p in [(128, 4), (512, 8), (1024, 16), (1 << 30, 32)] if genes <= most)
        self.patch = patch if c.get("tokens") == "spot" else genes
        self.missing = -genes % self.patch
        tokens = (genes + self.missing) // self.patch
        self.x_embedder = nn.Linear(4 * self.patch, d)
        self.positions = nn.Parameter(torch.zeros(tokens, d))
        self.t_embedder = Time(d, steps)
        self.rna_embedder = nn.Linear(genes, d)
        self.blocks = nn.ModuleList(Block(d, c["heads"], c.get("dropout", 0.0)) for _ in range(c["blocks"]))
        self.last_ada_ln, self.last = nn.Linear(d, 2 * d), nn.Linear(d, self.patch)
        self.straight = nn.Parameter(torch.zeros(1, genes))

    def forward(self, batch, text):
        c = F.silu(self.t_embedder(batch["times"]) + self.rna_embedder(batch["pair"]) + text)
        channels = torch.stack([batch[name] for name in ("noisy", "visible", "bits", "pair")], 1)
        b = len(channels)
        patches = F.pad(channels, (0, self.missing)).view(b, 4, -1, self.patch).transpose(1, 2).reshape(b, -1, 4 * self.patch)
        x = self.x_embedder(patches) + self.positions
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.last_ada_ln(c).unsqueeze(1).chunk(2, 2)
        return self.last(norm(x, shift, scale)).view(b, -1)[:, : self.genes] + self.straight * batch["pair"]


class Layer(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear, self.norm = nn.Linear(n_in, n_out), nn.LayerNorm(n_out)


class Omega(nn.Module):
    """The first stage: frozen and not run in the second, but there."""

    def __init__(self, widths, genes):
        super().__init__()
        a, b, c = widths
        self.down = nn.ModuleList([Layer(genes, a), Layer(a, b), Layer(b, c)])
        self.up = nn.ModuleList([Layer(c, b), Layer(2 * b, a)])
        self.last = nn.Linear(2 * a, genes)
        self.requires_grad_(False)


class Spotdiff(nn.Module):
    def __init__(self, config, genes):
        super().__init__()
        model, task = config["model"]["spotdiff"], config["task"]
        self.omega = Omega(model["omega"]["widths"], genes)
        self.prompt = Prompt(model["prompt"], genes, model["psi"]["d"])
        self.psi = Psi(model["psi"], genes, task.get("steps", 1000))
        self.share = task["spot_share"]

    def forward(self, batch, weights):
        """The objective, and its terms."""
        said = self.psi(batch, self.prompt(batch))
        errors = ((said - batch["target"]) * batch["asked"]).square().sum(1)
        spots = (errors * batch["spot"]).sum() / weights[0]
        cells = (errors * (1 - batch["spot"])).sum() / weights[1]
        return self.share * spots + (1 - self.share) * cells, [spots, cells]
