"""Transformer encoders: a trunk over any embedding, and the plain vision transformer made of it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from kvseg_monai.blocks import PatchEmbedding, TransformerBlock, build_attention

_layer_norm = partial(nn.LayerNorm, eps=1e-6)


class TransformerTrunk(nn.Module):
    """An embedding and a stack of transformer blocks, of which chosen ones hand out their output.

    Args:
        embedding: maps an image or feature map to tokens (B, N, C) and their grid (H, W).
        blocks: called in turn as ``block(tokens, grid)``.
        hidden_size: C, the width of the tokens.
        stride: pixels of the input per token, per side.
        out_layers: 1-based numbers of the blocks whose outputs are returned; None means the last one.
        norm: called with C, makes the norm of each returned output.

    Attributes:
        channels: channels of each returned feature map.
        stride: as above.
    """

    def __init__(
        self,
        embedding: nn.Module,
        blocks: Iterable[nn.Module],
        *,
        hidden_size: int,
        stride: int,
        out_layers: Sequence[int] | None = None,
        norm: Callable[[int], nn.Module] = _layer_norm,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)
        self.out_layers = list(out_layers or (len(self.blocks),))
        self.norms = nn.ModuleList(
            norm(hidden_size) if number in self.out_layers else nn.Identity()
            for number in range(1, len(self.blocks) + 1)
        )
        self.channels = (hidden_size,) * len(self.out_layers)
        self.stride = stride
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, in_channels, H, W) to one normed feature map (B, C, H / stride, W / stride) per output layer."""
        tokens, grid = self.embedding(image)
        features: list[Tensor] = []
        for index, (block, norm) in enumerate(zip(self.blocks, self.norms)):  # noqa: B905, TorchScript has no strict
            tokens = block(tokens, grid)
            if index + 1 in self.out_layers:
                features.append(norm(tokens).transpose(1, 2).unflatten(2, [grid[0], grid[1]]))
        return features


class ViTEncoder(TransformerTrunk):
    """A plain vision transformer (Dosovitskiy et al., arXiv 2010.11929) without class token.

    SETR's official encoder drops its class token before the first block, so leaving it out changes nothing.

    Args:
        in_channels: channels of the image or feature map.
        img_size: (H, W) in pixels for which positions are learned; other multiples of the patch size interpolate.
        attention: attention kind, a name in ``kvseg_monai.blocks.ATTENTION_KINDS``.
        hidden_size: C, the width of the tokens.
        num_layers: number of transformer blocks.
        num_heads: h.
        mlp_ratio: width of the MLP's hidden layer as a multiple of C.
        patch_size: side of a patch in pixels.
        out_layers: see :class:`TransformerTrunk`.
        dropout: rate in the embedding, the attention and the MLP, in training only.
    """

    def __init__(
        self,
        in_channels: int,
        img_size: tuple[int, int],
        *,
        attention: str,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: int = 4,
        patch_size: int = 16,
        out_layers: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        grid = (img_size[0] // patch_size, img_size[1] // patch_size)
        super().__init__(
            PatchEmbedding(in_channels, hidden_size, patch_size=patch_size, grid=grid, dropout=dropout),
            (
                TransformerBlock(
                    build_attention(attention, hidden_size, num_heads, grid=grid, dropout=dropout),
                    hidden_size=hidden_size,
                    mlp_dim=mlp_ratio * hidden_size,
                    dropout=dropout,
                )
                for _ in range(num_layers)
            ),
            hidden_size=hidden_size,
            stride=patch_size,
            out_layers=out_layers,
        )


def _initialise(module: nn.Module) -> None:
    """Initialise linear layers as the ViT paper's code does: truncated normal of 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
