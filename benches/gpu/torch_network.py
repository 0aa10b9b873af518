#!/usr/bin/env python3
"""A step of SPATIA in PyTorch on a GPU: cells|generate BATCHES WEIGHTS f32|tf32|bf16 eager|compiled [DEVICE]. Prints a line of JSON.

The network of `benches/torch/spatia.py`, which `benches/torch/spatia_step.py` holds against ours to 1e-4 before it times either. BATCHES
is what the bench program `step_batches` wrote of the first step of ours, WEIGHTS what it said; all lanes in turn, forward and backward of
each, then clip, AdamW and EMA. f32 is f32 (TF32 off, unless it is asked for), bf16 is autocast. On the cores a
few steps, which show that it works. Needs Python 3.9 and PyTorch.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch"))
import spatia_step  # noqa: E402
import steps  # noqa: E402

what, path, weights, products, how, *device = sys.argv[1:]
device = torch.device(device[0] if device else "cuda")
weights = json.loads(weights)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = products == "tf32"
torch.manual_seed(0)
network = spatia_step.NETWORKS[what]
parameters, lanes = steps.load(network, path, False)
model = steps.built(network, parameters, False).to(device)
lanes = [{name: tensor.to(device) for name, tensor in lane.items()} for lane in lanes]
torch.set_default_device(device)  # for what the networks make on the way
on_gpu = device.type == "cuda"
STEPS, WARM_UP = (20, 5) if on_gpu else (3, 1)
wait = torch.cuda.synchronize if on_gpu else lambda: None


class Narrow(torch.nn.Module):
    """With autocast where bf16 is asked for."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, lane, weights):
        with torch.autocast(device.type, torch.bfloat16, enabled=products == "bf16"):
            return self.inner(lane, weights)


model = Narrow(model)
with FlopCounterMode(display=False) as flops:
    for lane in lanes:
        model(lane, weights)[0].backward()
step = steps.stepper(network, model, lanes, weights, how == "compiled")
seconds = []
for _ in range(WARM_UP + STEPS):
    wait()
    start = time.perf_counter()
    step()
    wait()
    seconds.append(time.perf_counter() - start)
took = statistics.median(seconds[WARM_UP:])
print(json.dumps({
    "step_ms": 1e3 * took, "allocated_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    "flops": flops.get_total_flops(), "tflops": flops.get_total_flops() / took / 1e12, "torch": torch.__version__,
}))  # fmt: skip
