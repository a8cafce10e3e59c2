"""Prepared volumes on the GPU that trains, where its memory holds them: no slice then has to come from the host."""

import logging
from collections.abc import MutableSequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

GIGABYTE = 1e9


class OnDevice:
    """The ``move`` of a :class:`kvseg_monai.data.VolumeDataset` that moves the volumes which it keeps to a GPU.

    All go there, or none: where they take more than a share of the memory that is free, they stay on the host, and each
    batch is pinned on its way (see :class:`kvseg_monai.transforms.PrepareAugmentedBatch`). Of a case its tensors are
    moved, image and label. Lists stay on the host, as that of the slices that show a class, by which slices are drawn.

    Args:
        device: that the network is on; on the CPU nothing is moved.
        share: of the memory that is free when it is called, from 0, which moves nothing, to 1. The network needs the
            rest, and so do other processes on the same GPU.
        num_workers: of the loader; with any, nothing is moved, for they cannot read what is on a GPU.
    """

    def __init__(self, device: torch.device | str, *, share: float = 0.25, num_workers: int = 0) -> None:
        self.device, self.share, self.num_workers = torch.device(device), share, num_workers

    def __call__(self, cases: MutableSequence[Any]) -> None:
        """Replace cases by such on the device; one that is not prepared yet, None, stays so."""
        if self.device.type != "cuda" or self.num_workers or self.share <= 0:
            return
        needed = sum(value.nbytes for case in cases for value in (case or {}).values() if isinstance(value, Tensor))
        free = torch.cuda.mem_get_info(self.device)[0]
        fits = needed <= self.share * free
        logger.info(
            "the prepared volumes take %.2f GB, and on %s they may take %s of the %.2f GB that are free: they %s",
            *(needed / GIGABYTE, self.device, f"{self.share:.0%}", free / GIGABYTE),
            "go there" if fits else "stay on the host",
        )
        if fits:
            for number, case in enumerate(cases):
                cases[number] = case and {key: self._moved(value) for key, value in case.items()}

    def _moved(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value
