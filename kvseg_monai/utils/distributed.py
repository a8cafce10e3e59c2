"""One of several processes that train together, started by ``torchrun``: on GPUs or, to try it, on the CPU."""

import os

import torch
import torch.distributed as dist
from torch import nn

from kvseg_monai.utils.tensors import laid_out


def process_device() -> torch.device:
    """Return the device of this process: the GPU of its number, or the CPU where there is none."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def with_shared_norms(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a network on its device, channels last, whose batch norms on a GPU see the batches of all processes."""
    if torch.device(device).type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return laid_out(network, device)


def join_processes(device: torch.device | str) -> None:
    """Connect this process to the others."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
