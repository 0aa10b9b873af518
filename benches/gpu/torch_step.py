#!/usr/bin/env python3
"""SpaCKLE `paper`'s step in PyTorch on a GPU: LANES MICRO_BATCH GENES f32|tf32|bf16 eager|compiled [DEVICE]. Prints a line of JSON.

The network of `benches/torch/spackle_step.py`, dropout .1, forward and backward of every lane and one Adam. f32 is f32
(TF32 off, unless it is asked for), bf16 is autocast. On the cores a few steps, which show that it works. Needs Python 3.9 and PyTorch.
"""

import json
import statistics
import sys
import time

import torch
from torch import nn

lanes, micro_batch, genes = map(int, sys.argv[1:4])
products, how, *device = sys.argv[4:]
device = torch.device(device[0] if device else "cuda")
on_gpu = device.type == "cuda"
STEPS, WARM_UP = (30, 10) if on_gpu else (3, 1)
wait = torch.cuda.synchronize if on_gpu else lambda: None
spots = 19
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = products == "tf32"
torch.manual_seed(0)


class Spackle(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(genes, 128)
        layer = nn.TransformerEncoderLayer(128, 1, 2048, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(128, genes)

    def forward(self, x):
        return self.out(self.encoder(self.linear(x)))


model = Spackle().train().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def loss(x, y):
    with torch.autocast(device.type, torch.bfloat16, enabled=products == "bf16"):
        out = model(x)
    return ((out.float() - y) ** 2).sum() / (lanes * micro_batch * spots * genes)


if how == "compiled":
    loss = torch.compile(loss)
target = torch.randn(lanes, micro_batch, spots, genes, device=device) + 9
hidden = target * (torch.rand_like(target) > 0.3)
seconds = []
for _ in range(WARM_UP + STEPS):
    wait()
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    for lane in range(lanes):
        loss(hidden[lane], target[lane]).backward()
    optimizer.step()
    wait()
    seconds.append(time.perf_counter() - start)
# Weights that multiply each token: forward 2 FLOP each, backward 4. Scores and mixing: 2 · 2 · s · d per token and layer, thrice.
weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
tokens = lanes * micro_batch * spots
flops = 6 * weights * tokens + 3 * 2 * (2 * 2 * spots * 128) * tokens
step = statistics.median(seconds[WARM_UP:])
print(json.dumps({
    "step_ms": 1e3 * step, "allocated_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None, "flops": flops,
    "tflops": flops / step / 1e12, "torch": torch.__version__,
}))  # fmt: skip
