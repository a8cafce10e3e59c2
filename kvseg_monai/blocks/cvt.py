"""Convolutional embedding and projection of tokens, as in CvT (Wu et al., ICCV 2021, arXiv 2103.15808).

Shapes: B batch, N = H * W tokens on a grid (H, W) in row-major order, C = hidden_size.
"""

from torch import Tensor, nn

from kvseg_monai.blocks.linear import Linear


class ConvEmbedding(nn.Module):
    """Tokens from overlapping patches: a strided convolution, then layer norm; no position is added.

    Args:
        in_channels: channels of the image or feature map.
        hidden_size: C, the width of the tokens.
        patch_size: side of the convolution's kernel.
        stride: step between patches; the padding is such that a side that is a multiple of it shrinks exactly by it.
        dropout: rate on the tokens, in training only.

    Examples:
        >>> import torch
        >>> tokens, grid = ConvEmbedding(1, 48, patch_size=7, stride=4)(torch.zeros(2, 1, 64, 32))
        >>> tokens.shape, grid
        (torch.Size([2, 128, 48]), (16, 8))
    """

    def __init__(
        self, in_channels: int, hidden_size: int, *, patch_size: int, stride: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        padding = (patch_size - stride + 1) // 2  # 2 for patches of 7 at stride 4, 1 for 3 at 2, as in the source
        self.projection = nn.Conv2d(in_channels, hidden_size, patch_size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map an image (B, in_channels, H * stride, W * stride) to tokens (B, N, C) and their grid (H, W)."""
        features = self.projection(image)
        grid = (features.shape[2], features.shape[3])
        return self.dropout(self.norm(features.flatten(2).transpose(1, 2))), grid


class ConvProjection(nn.Module):
    """Projection of tokens that sees their neighbours: depthwise 3x3 convolution, batch norm, then a linear map.

    Args:
        in_channels: C.
        out_channels: C'.
        stride: of the convolution; the result lies on ceil(H / stride) x ceil(W / stride) tokens.

    Examples:
        >>> import torch
        >>> ConvProjection(48, 48, stride=2)(torch.zeros(2, 128, 48), (16, 8)).shape
        torch.Size([2, 32, 48])
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False
        )
        self.norm = nn.BatchNorm2d(in_channels)
        self.linear = Linear(in_channels, out_channels)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Project tokens (B, N, C) that lie on ``grid`` (H, W) to (B, M, C')."""
        image = tokens.transpose(1, 2).unflatten(2, [grid[0], grid[1]])  # (B, N, C) -> (B, C, H, W)
        return self.linear(self.norm(self.depthwise(image)).flatten(2).transpose(1, 2))
