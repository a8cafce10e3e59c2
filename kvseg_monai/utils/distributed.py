"""One of several processes that train together, started by ``torchrun``: on GPUs or, to try it, on the CPU."""

import os

import torch
import torch.distributed as dist
from torch import nn


def process_device() -> torch.device:
    """Return the device of this process: the GPU of its number, or the CPU where there is none."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def with_shared_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network on its device, whose batch norms on a GPU see the batches of all processes."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(network).to(device) if torch.cuda.is_available() else network


def join_processes(device: torch.device) -> None:
    """Connect this process to the others."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
