"""Costs of one forward of any network: multiply-accumulates and memory."""

import json
import os
from collections.abc import Callable
from itertools import accumulate
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from kvseg_monai.utils.cpu import plain_linear

_ATEN = torch.ops.aten
_CONV_AND_LINEAR = (_ATEN.convolution, _ATEN.addmm, _ATEN.mm)  # a linear map of tokens runs as one of the last two


def count_macs(network: nn.Module, *inputs: Any) -> tuple[int, int]:
    """Count the multiply-accumulates of a forward: complete, and of convolutions and linear maps alone.

    Complete adds all other matrix products, which are the attention's. Elementwise operations, norms, softmax and
    resizing are in neither. The attention is made to run as separate products, because the counter does not know the
    fused kernel of a CPU. Works on the meta device too, where it takes neither time nor memory.
    """
    counter = FlopCounterMode(display=False, custom_mapping={_ATEN.mv: lambda matrix, *_, **__: 2 * prod(matrix)})
    with torch.no_grad(), plain_linear(), sdpa_kernel(SDPBackend.MATH), counter:
        network(*inputs)
    flops = counter.get_flop_counts().get("Global", {})
    return sum(flops.values()) // 2, sum(flops.get(operation, 0) for operation in _CONV_AND_LINEAR) // 2


def peak_memory(forward: Callable[[], Any], device: str = "cpu") -> int:
    """Return the most bytes that are allocated at once during ``forward``, beyond what was allocated before.

    These are torch's own allocations, exactly; on a CPU the scratch space inside oneDNN and MKL comes on top.
    """
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        forward()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler reports on itself
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        forward()
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = (event["args"]["Bytes"] for event in events if event.get("name") == "[memory]")
    return max(accumulate(changes), default=0)
