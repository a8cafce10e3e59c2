"""Multi-head self-attention composed of parts: with or without its own query, value and positional part.

Shapes: B batch, N = H * W tokens on a grid (H, W), M <= N attended keys, C = hidden_size, h heads, D = C / h.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kvseg_monai.blocks.linear import Linear, linear
from kvseg_monai.blocks.position import KeyBias, RelativePosition
from kvseg_monai.errors import InputError


class LinearProjection(Linear):
    """A linear map of tokens, (B, N, C) -> (B, N, C'); the grid that convolutional projections need is ignored.

    Examples:
        >>> import torch
        >>> LinearProjection(8, 16)(torch.zeros(2, 12, 8), (3, 4)).shape
        torch.Size([2, 12, 16])
    """

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Project each token by itself."""
        return linear(tokens, self.weight, self.bias)


class Subsample(nn.Module):
    """Keep the tokens of every ``stride``-th row and column, from the first on: (B, H * W, C) -> (B, M, C).

    These are the places where a convolution of odd kernel, padded to keep the grid, is evaluated at that stride, so
    sub-sampling its output at stride 1 is the strided convolution with the same weights.

    Examples:
        >>> import torch
        >>> tokens = torch.arange(12.0).reshape(1, 12, 1)  # 3 rows of 4
        >>> Subsample(2)(tokens, (3, 4)).flatten().tolist()
        [0.0, 2.0, 8.0, 10.0]
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Thin out ``tokens`` that lie on ``grid`` (H, W); M = ceil(H / stride) * ceil(W / stride)."""
        image = tokens.unflatten(1, [grid[0], grid[1]])  # (B, N, C) -> (B, H, W, C)
        return image[:, :: self.stride, :: self.stride].flatten(1, 2)


class Attention(nn.Module):
    r"""Self-attention whose query, value and position are optional.

    .. math:: \mathrm{softmax}(Q K^T / \sqrt{D} + \mathrm{position}) V

    Without a query projection the key is its own query (Borji, arXiv 2305.19129), so the logits K K^T are symmetric;
    without a value projection the value is the key (Kayyam et al., arXiv 2606.04032). Whatever the parts, the forward
    is one call of the fused ``scaled_dot_product_attention``. The scale is 1 / sqrt(D) per head in every kind (our
    choice; Borji's scripts use 1 / sqrt(C)).

    Args:
        hidden_size: C, the width of the tokens, a multiple of ``num_heads``.
        num_heads: h.
        key: projection called as ``key(tokens, grid)``, (B, N, C) -> (B, M, C), or (B, N, C) where it is the query
            too; the linear projection has M = N.
        query: likewise, to (B, N, C); None reuses the key.
        value: likewise, to (B, M, C); None reuses the attended keys.
        reduction: called as ``reduction(keys, grid)``, (B, N, C) -> (B, M, C): thins the keys out to the attended
            ones after the query has been taken from them; None attends to every key.
        position: positional part (see :mod:`kvseg_monai.blocks.position`); None adds no position.
        dropout: rate on the attention weights and on the output, in training only.

    Raises:
        ValueError: when ``hidden_size`` is not a multiple of ``num_heads``.

    Examples:
        >>> import torch
        >>> attention = Attention(8, 2, key=LinearProjection(8, 8), value=LinearProjection(8, 8))  # no query
        >>> attention(torch.zeros(1, 12, 8), (3, 4)).shape
        torch.Size([1, 12, 8])
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        key: nn.Module,
        query: nn.Module | None = None,
        value: nn.Module | None = None,
        reduction: nn.Module | None = None,
        position: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise InputError(
                f"hidden_size is {hidden_size} and num_heads is {num_heads}; it must be a multiple of num_heads"
            )
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.scale = self.head_dim**-0.5
        self.query, self.key, self.value, self.reduction, self.position = query, key, value, reduction, position
        self.output = Linear(hidden_size, hidden_size)
        self.dropout = dropout

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)  # (B, N, C) -> (B, h, N, D)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend over ``tokens`` (B, N, C) that lie on ``grid`` (H, W) in row-major order; returns (B, N, C)."""
        key = self.key(tokens, grid)
        query = key if self.query is None else self.query(tokens, grid)
        if self.reduction is not None:
            key = self.reduction(key, grid)
        value = key if self.value is None else self.value(tokens, grid)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        mask: Tensor | None = None
        if self.position is not None:
            query, key, value, mask = self.position(query, key, value, grid=grid, scale=self.scale)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=self.scale)
        mixed = mixed[..., : self.head_dim].transpose(1, 2).flatten(2)  # (B, h, N, D + extra) -> (B, N, C)
        return F.dropout(self.output(mixed), self.dropout, self.training)


@dataclass(frozen=True)
class Kind:
    """Parts of an attention kind; ``position`` is called with ``head_dim``, ``grid`` and ``key_stride``."""

    query: bool
    value: bool
    position: Callable[..., nn.Module] | None = None


def _key_bias(*, head_dim: int, grid: tuple[int, int], key_stride: int = 1) -> KeyBias:
    attended = (-(-grid[0] // key_stride), -(-grid[1] // key_stride))
    return KeyBias(grid=attended)  # one bias per key, shared by the heads, so it does not depend on D


ATTENTION_KINDS: dict[str, Kind] = {
    "qkv": Kind(query=True, value=True),
    "kv": Kind(query=False, value=True),
    "kv_pos": Kind(query=False, value=True, position=_key_bias),
    "kv_rel": Kind(query=False, value=True, position=RelativePosition),
    "qk": Kind(query=True, value=False),
    "k": Kind(query=False, value=False),
}


def build_attention(
    kind: str,
    hidden_size: int,
    num_heads: int,
    *,
    grid: tuple[int, int],
    projection: Callable[..., Any] = LinearProjection,
    key_stride: int = 1,
    dropout: float = 0.0,
) -> Attention:
    """Build the attention that a kind's name stands for; a name lists the projections that exist.

    Args:
        kind: one of :data:`ATTENTION_KINDS`.
        hidden_size: C.
        num_heads: h.
        grid: (H, W), the token grid at the reference image size.
        projection: called as ``projection(C, C)`` once for each projection of the kind, and with ``stride=key_stride``
            for the keys and values of a larger stride.
        key_stride: keys and values lie on every ``key_stride``-th row and column of the grid. A key that is its own
            query is projected at stride 1 and then thinned out, since a query must exist for every token.
        dropout: see :class:`Attention`.

    Raises:
        ValueError: for an unknown kind.

    Examples:
        >>> kinds = {kind: build_attention(kind, 64, 4, grid=(7, 7)) for kind in ("qkv", "kv", "kv_pos", "k")}
        >>> {kind: sum(p.numel() for p in built.parameters()) for kind, built in kinds.items()}
        {'qkv': 16640, 'kv': 12480, 'kv_pos': 12530, 'k': 8320}
    """
    if kind not in ATTENTION_KINDS:
        raise InputError(f"attention is {kind!r}; it must be one of {', '.join(ATTENTION_KINDS)}")
    parts = ATTENTION_KINDS[kind]
    attended = projection if key_stride == 1 else partial(projection, stride=key_stride)
    return Attention(
        hidden_size,
        num_heads,
        query=projection(hidden_size, hidden_size) if parts.query else None,
        key=attended(hidden_size, hidden_size) if parts.query else projection(hidden_size, hidden_size),
        value=attended(hidden_size, hidden_size) if parts.value else None,
        reduction=Subsample(key_stride) if key_stride > 1 and not parts.query else None,
        position=parts.position and parts.position(head_dim=hidden_size // num_heads, grid=grid, key_stride=key_stride),
        dropout=dropout,
    )
