"""Sampler of the volumes that make up a batch of training."""

import math
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler


class FullBatchSampler(Sampler[int]):
    """Sampler that draws all volumes in a random order, and fills the last batch from a further order.

    Every batch has its full number of slices, however few volumes there are: of three, each is in a batch of 16 five
    times or more, by other slices. Batch norm and the Dice of a batch need them.

    Args:
        dataset: its length is that of an order.
        batch_size: volumes of a batch.

    Examples:
        >>> order = list(FullBatchSampler(range(3), batch_size=2))
        >>> len(order), sorted(order[:3])
        (4, [0, 1, 2])
    """

    def __init__(self, dataset: Sized, batch_size: int) -> None:
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self) -> int:
        """Return how many volumes an epoch draws: whole batches."""
        return math.ceil(len(self.dataset) / self.batch_size) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Draw by torch's random numbers, as its own ``RandomSampler`` does."""
        left = len(self)
        while left:
            order = torch.randperm(len(self.dataset))[:left].tolist()
            left -= len(order)
            yield from order
