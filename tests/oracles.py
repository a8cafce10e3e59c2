"""Independent, literal forms of what the package computes in a collapsed or folded way."""

import math

import torch
from torch import Tensor


def pair_encoding(num_tokens: int, channels: int) -> Tensor:
    """P of Borji's KV+Pos, (N, N, m): a sinusoidal 2D encoding of the pair (query index, key index).

    The first 2 * ceil(m / 4) channels encode the query index, the others the key index, cut to m.
    """
    half = 2 * math.ceil(channels / 4)
    encoded = torch.zeros(num_tokens, half, dtype=torch.float64)
    for index in range(num_tokens):
        for channel in range(half):
            frequency = 10000 ** (-(channel - channel % 2) / half)
            encoded[index, channel] = (math.cos if channel % 2 else math.sin)(index * frequency)
    by_query = encoded[:, None, :].expand(-1, num_tokens, -1)
    by_key = encoded[None, :, :].expand(num_tokens, -1, -1)
    return torch.cat((by_query, by_key), dim=-1)[..., :channels]


def literal_kv_pos(
    key: Tensor, value: Tensor, weight: Tensor, offset: Tensor, *, pairs: Tensor, scale: float
) -> Tensor:
    """KV+Pos as published: (B, h, N, D) keys and values; logits_ij = w . (s_ij + P_ij) + b, softmax over j.

    ``pairs`` is P, fixed and therefore made once, by :func:`pair_encoding`.
    """
    similarity = key @ key.transpose(-1, -2) * scale  # (B, h, N, N)
    logits = (similarity[..., None] + pairs) @ weight + offset  # (B, h, N, N, m) -> (B, h, N, N)
    return logits.softmax(-1) @ value


def dense_relative_bias(query: Tensor, rows: Tensor, columns: Tensor, grid: tuple[int, int]) -> Tensor:
    """The decomposed relative position bias, built pair by pair: (B, h, N, D) -> (B, h, N, N)."""
    height, width = grid
    bias = query.new_zeros(*query.shape[:3], height * width)
    for i in range(height * width):
        for j in range(height * width):
            row = rows[i // width - j // width + height - 1]
            column = columns[i % width - j % width + width - 1]
            bias[:, :, i, j] = query[:, :, i] @ (row + column)
    return bias


class IntensityOracle(torch.nn.Module):
    """A network that knows the answer: class k where the normalised intensity is nearest to k / (classes - 1)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0, 1, classes)[None, :, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, classes, H, W)."""
        return -1000 * (image[:, :1] - self.levels) ** 2
