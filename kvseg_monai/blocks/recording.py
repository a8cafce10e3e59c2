"""Attention maps of a network, and how symmetric its logits are, read from its fused calls, which stay as they are.

Shapes: B images, N = H * W tokens on a grid (H, W), M attended keys on a grid (H', W'), h heads, D = head_dim,
which a positional part may have widened.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kvseg_monai.blocks import Attention, ConvProjection, KeyBias


@dataclass(frozen=True)
class AttentionLayer:
    """Inputs of one attention's fused call: query (B, h, N, D), key and value (B, h, M, D), and a mask."""

    name: str
    attention: Attention
    grid: tuple[int, int]
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None

    @property
    def key_stride(self) -> int:
        """Rows and columns of the grid from one attended key to the next."""
        if self.attention.reduction is not None:
            return int(self.attention.reduction.stride)  # type: ignore[arg-type]  # a module's attribute
        projection = self.attention.key
        return int(projection.depthwise.stride[0]) if isinstance(projection, ConvProjection) else 1

    @property
    def key_grid(self) -> tuple[int, int]:
        """Grid of the attended keys, (H', W')."""
        return math.ceil(self.grid[0] / self.key_stride), math.ceil(self.grid[1] / self.key_stride)

    def logits(self, tokens: Tensor | None = None) -> Tensor:
        """Return what the softmax is taken of, (B, h, N, M), or its rows of the given tokens, (B, h, len, M)."""
        query = self.query if tokens is None else self.query[:, :, tokens]
        logits = query @ self.key.transpose(-1, -2) * self.attention.scale
        return logits if self.mask is None else logits + self.mask  # no mask here differs between queries

    def mixed(self) -> Tensor:
        """Return softmax(logits) V, (B, N, C): what the output projection is given."""
        mixed = (self.logits().softmax(-1) @ self.value)[..., : self.attention.head_dim]
        return mixed.transpose(1, 2).flatten(2)

    def map_of(self, place: tuple[float, float]) -> Tensor:
        """Return how the first image's token at a place attends, (H', W'), the mean over the heads; it sums to 1.

        Args:
            place: row and column in the image, each from 0 to 1.
        """
        row, column = (min(int(part * side), side - 1) for part, side in zip(place, self.grid, strict=True))
        token = torch.tensor([row * self.grid[1] + column], device=self.query.device)
        return self.logits(token)[0, :, 0].softmax(-1).mean(0).unflatten(0, self.key_grid)

    def key_bias(self) -> Tensor | None:
        """Return g of KV+Pos, (H', W'), less its mean, which no softmax sees; None in every other kind."""
        if not isinstance(self.attention.position, KeyBias):
            return None
        bias = self.attention.position.bias(self.key.shape[2]).detach()
        return (bias - bias.mean()).unflatten(0, self.key_grid)

    def temperature(self) -> float:
        """Return the factor on the scaled products: a of KV+Pos, 1 in every other kind."""
        position = self.attention.position
        return float(position.temperature().detach()) if isinstance(position, KeyBias) else 1.0

    def key_share(self) -> float:
        """Return how much of the first image's logits the key alone decides, from 0 to 1.

        Each row less its mean, which no softmax sees: the share of all squares that lies in the column means. At 1 all
        tokens attend alike, at 0 no key is attended to more than another.
        """
        rows = self.logits()[0].double()
        rows = rows - rows.mean(-1, keepdim=True)
        spread = rows.square().mean()
        return float(rows.mean(-2).square().mean() / spread) if spread else 0.0

    def asymmetry(self, *, pairwise: bool = False) -> float:
        r"""Return how far the first image's logits S are from symmetric.

        .. math:: \lVert S - S^T \rVert / \lVert S + S^T \rVert

        over all heads, each less its mean: 0 is symmetric, 1 is what unrelated numbers have. Where keys are thinned
        out, S holds the queries at the attended places only, else it would not be square.

        Args:
            pairwise: take S less its row and column means too, which leaves what depends on query and key together.
                No softmax sees a constant of a row, and with the row's constant chosen alike a constant of a key is
                symmetric: KV+Pos, a K K^T + g_j, attends as a K K^T + g_i + g_j does. So it counts as symmetric here.
        """
        places = torch.arange(self.grid[0] * self.grid[1], device=self.query.device).reshape(self.grid)
        square = self.logits(places[:: self.key_stride, :: self.key_stride].flatten())[0].double()  # (h, M, M)
        square = square - square.mean((-2, -1), keepdim=True)
        if pairwise:
            square = square - square.mean(-1, keepdim=True) - square.mean(-2, keepdim=True)
        whole = (square + square.mT).norm()
        return float((square - square.mT).norm() / whole) if whole else 0.0


class _FusedCalls(TorchFunctionMode):
    """Mode that keeps the inputs of the last fused call."""

    given: tuple[Tensor, Tensor, Tensor, Tensor | None]

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self.given = (*args[:3], kwargs.get("attn_mask"))
        return function(*args, **kwargs)


@torch.no_grad()
def record_attention(network: nn.Module, image: Tensor) -> tuple[list[AttentionLayer], Tensor]:
    """Run a network, in evaluation mode, and return its attention layers in the order of their calls, and its output.

    Args:
        network: any that holds :class:`kvseg_monai.blocks.Attention`; other attention is not seen.
        image: its input, (B, C, H, W).
    """
    layers: list[AttentionLayer] = []

    def keep(name: str, attention: Attention, inputs: tuple[Tensor, tuple[int, int]], _: Tensor) -> None:
        layers.append(AttentionLayer(name, attention, (inputs[1][0], inputs[1][1]), *calls.given))

    named = [(name, part) for name, part in network.named_modules() if isinstance(part, Attention)]
    hooks = [attention.register_forward_hook(partial(keep, name)) for name, attention in named]
    try:
        with _FusedCalls() as calls:
            output = network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    return layers, output
