"""The transformer block and the patch embedding that the networks share.

Shapes: B batch, N = H * W tokens on a grid (H, W), C = hidden_size.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from kvseg_monai.blocks.linear import MLP


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        attention: called as ``attention(tokens, grid)``.
        hidden_size: C.
        mlp_dim: width of the MLP's hidden layer.
        dropout: rate inside the MLP, in training only.

    Examples:
        >>> import torch
        >>> from kvseg_monai.blocks import build_attention
        >>> block = TransformerBlock(build_attention("kv", 64, 4, grid=(3, 4)), hidden_size=64, mlp_dim=256)
        >>> block(torch.zeros(2, 12, 64), (3, 4)).shape
        torch.Size([2, 12, 64])
    """

    def __init__(self, attention: nn.Module, *, hidden_size: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.attention = attention
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.mlp = MLP(hidden_size, mlp_dim, dropout)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens (B, N, C) on ``grid`` to (B, N, C)."""
        tokens = tokens + self.attention(self.attention_norm(tokens), grid)
        return tokens + self.mlp(self.mlp_norm(tokens))


class PatchEmbedding(nn.Module):
    """Cut an image into patches, project them, and add a learned position that interpolates to any grid.

    Args:
        in_channels: channels of the image or feature map.
        hidden_size: C, the width of the tokens.
        patch_size: side of a patch in pixels.
        grid: (H, W) of the learned position embedding.
        dropout: rate on the tokens, in training only.

    Examples:
        >>> import torch
        >>> tokens, grid = PatchEmbedding(1, 192, patch_size=16, grid=(4, 4))(torch.zeros(2, 1, 64, 96))
        >>> tokens.shape, grid
        (torch.Size([2, 24, 192]), (4, 6))
    """

    def __init__(
        self, in_channels: int, hidden_size: int, *, patch_size: int, grid: tuple[int, int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)
        self.position = nn.Parameter(trunc_normal_(self.projection.weight.new_empty(1, hidden_size, *grid), std=0.02))
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map an image (B, in_channels, H * patch, W * patch) to tokens (B, N, C) and their grid (H, W)."""
        features = self.projection(image)
        grid = (features.shape[2], features.shape[3])
        position: Tensor = self.position
        if features.shape[2:] != position.shape[2:]:
            position = F.interpolate(position, size=grid, mode="bicubic", align_corners=False)
        return self.dropout((features + position).flatten(2).transpose(1, 2)), grid
