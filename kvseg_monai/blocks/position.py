"""Positional parts of attention: each folds its logits into one fused attention call, with no N x N tensor.

Shapes: B batch, N = H * W tokens on a grid (H, W) in row-major order, M attended keys (M = N unless they are thinned
out), h heads, D = head_dim.

A positional part is called as ``query, key, value, mask = part(query, key, value, grid=(H, W), scale=scale)`` on
a query of shape (B, h, N, D), a key and a value of shape (B, h, M, D). It may widen the three by extra channels (the
attention cuts the output back to D) and it may return an additive ``mask`` that broadcasts to (B, h, N, M). ``scale``
is the factor that the attention applies to the dot products, so a part that folds unscaled logits into extra channels
divides by it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Folded = tuple[Tensor, Tensor, Tensor, Tensor | None]


def sinusoids(num_tokens: int, channels: int) -> Tensor:
    """Return the sine and cosine, interleaved, of the token index at geometric frequencies.

    Returns:
        (num_tokens, channels) in float64; channel 2f is sin(j / 10000^(2f / channels)) and channel 2f + 1 its cosine.
    """
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float64) * (-math.log(10000.0) / channels))
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequency  # (N, channels / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class KeyBias(nn.Module):
    r"""The positional part of KV+Pos, in its collapsed form: a temperature and one number per key.

    Published KV+Pos (Borji, "Key-Value Transformer", arXiv 2305.19129) feeds ``s_ij + P_ij`` through a linear map
    m -> 1 with weights w and offset b, where s are the scaled dot products and P is a fixed sinusoidal encoding of the
    index pair (i, j). P's first ``2 * ceil(m / 4)`` channels depend on the query i alone and the others on the key j
    alone, and a softmax over j does not see what is constant in j. Hence, exactly,

    .. math:: \mathrm{logits}_{ij} = a \, s_{ij} + g_j, \quad a = \sum w, \quad g_j = w_{\mathrm{key\ part}} \cdot P_j

    Deviations from the source, ours: w starts at 1 / m, so that a = 1 (the usual symmetric start makes half of the
    temperatures negative); b is left out because no gradient ever reaches it. Where the keys are thinned out, j counts
    the attended keys.

    Args:
        channels: m, the number of channels of P.
        grid: (H, W) of the keys for which the encoding is kept ready; any other works and is encoded on the fly.

    Examples:
        >>> import torch
        >>> position = KeyBias(grid=(3, 4)).eval()
        >>> query = key = value = torch.zeros(1, 2, 12, 8)
        >>> *_, mask = position(query, key, value, grid=(3, 4), scale=8**-0.5)
        >>> mask.shape, float(position.temperature())
        (torch.Size([1, 1, 1, 12]), 1.0)
    """

    def __init__(self, *, channels: int = 50, grid: tuple[int, int]) -> None:
        super().__init__()
        self.query_channels = 2 * math.ceil(channels / 4)
        self.encoding: Tensor
        self.weight = nn.Parameter(torch.full((channels,), 1.0 / channels))
        self.register_buffer("encoding", self._encode(grid[0] * grid[1]), persistent=False)

    def _encode(self, num_tokens: int) -> Tensor:
        key_channels = self.weight.shape[0] - self.query_channels
        return sinusoids(num_tokens, self.query_channels)[:, :key_channels].to(self.weight)

    def temperature(self) -> Tensor:
        """Return a, a scalar."""
        return self.weight.sum()

    def bias(self, num_tokens: int) -> Tensor:
        """Return g, (num_tokens,): what each key gets on top of its dot products."""
        encoding = self.encoding if num_tokens == self.encoding.shape[0] else self._encode(num_tokens)
        return encoding @ self.weight[self.query_channels :]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, grid: tuple[int, int], scale: float) -> Folded:
        """Fold the temperature into the query, and the key bias into a mask or, in training, into one channel.

        A mask is the cheapest form, but the fused kernels on a CPU have no gradient for it. With the bias as one more
        channel, q' = [a q, 1 / scale] and k' = [k, g], training stays fused too. Both are the same function.
        """
        query = query * self.temperature()
        bias = self.bias(key.shape[2])
        if not self.training:
            return query, key, value, bias.to(query.dtype)[None, None, None]
        constant = torch.full_like(query[..., :1], 1.0 / scale)
        channel = bias[:, None].to(key.dtype).expand_as(key[..., :1])
        return torch.cat((query, constant), -1), torch.cat((key, channel), -1), F.pad(value, (0, 1)), None


class RelativePosition(nn.Module):
    r"""Decomposed relative position on the image grid, folded into one extra channel per row and per column.

    .. math:: \mathrm{bias}_{ij} = q_i \cdot R_h[\mathrm{row}_i - \mathrm{row}_j] + q_i \cdot R_w[\mathrm{col}_i -
              \mathrm{col}_j]

    as in MViTv2 (Li et al., 2022) and SAM's image encoder. The query gets its products with the tables, the key gets
    its one-hot row and column, so the dot product adds exactly the bias (the folding idea is FlashBias', NeurIPS
    2025). In kind ``kv_rel`` the query is the key, and this term is what makes the logits asymmetric.

    Args:
        head_dim: D.
        grid: (H, W) for which the tables are sized; for other grids they are interpolated linearly.
        key_stride: s when the keys lie on every s-th row and column: row r of the keys is row s * r of the grid.

    Examples:
        >>> import torch
        >>> position = RelativePosition(head_dim=8, grid=(3, 4))
        >>> query = key = value = torch.zeros(1, 2, 12, 8)
        >>> query, key, value, mask = position(query, key, value, grid=(3, 4), scale=8**-0.5)
        >>> query.shape, mask  # 3 rows and 4 columns more
        (torch.Size([1, 2, 12, 15]), None)
    """

    def __init__(self, *, head_dim: int, grid: tuple[int, int], key_stride: int = 1) -> None:
        super().__init__()
        self.key_stride = key_stride
        self.rows = nn.Parameter(torch.zeros(2 * grid[0] - 1, head_dim))
        self.columns = nn.Parameter(torch.zeros(2 * grid[1] - 1, head_dim))
        nn.init.trunc_normal_(self.rows, std=0.02)
        nn.init.trunc_normal_(self.columns, std=0.02)

    @staticmethod
    def _table(offsets: Tensor, size: int) -> Tensor:
        """Spread (2 * size' - 1, D) offsets over a (size, size, D) table indexed by [query, key]."""
        if offsets.shape[0] != 2 * size - 1:
            offsets = F.interpolate(offsets.T[None], size=2 * size - 1, mode="linear", align_corners=True)[0].T
        index = torch.arange(size, device=offsets.device)
        return offsets[index[:, None] - index[None, :] + size - 1]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, grid: tuple[int, int], scale: float) -> Folded:
        """Append a channel per row and column of keys to query and key; pad the value, fused kernels want one width."""
        rows = self._table(self.rows, grid[0])[:, :: self.key_stride].to(query.dtype)  # (H, H', D)
        columns = self._table(self.columns, grid[1])[:, :: self.key_stride].to(query.dtype)  # (W, W', D)
        height, width = rows.shape[1], columns.shape[1]  # H' = ceil(H / s), W' = ceil(W / s)
        image = query.unflatten(2, [grid[0], grid[1]])  # (B, h, N, D) -> (B, h, H, W, D)
        by_row = torch.einsum("bhrcd,rkd->bhrck", image, rows)
        by_column = torch.einsum("bhrcd,ckd->bhrck", image, columns)
        products = torch.cat((by_row, by_column), -1).flatten(2, 3) / scale  # (B, h, N, H' + W')
        row = torch.eye(height, dtype=key.dtype, device=key.device).repeat_interleave(width, 0)  # (M, H')
        column = torch.eye(width, dtype=key.dtype, device=key.device).repeat(height, 1)  # (M, W')
        place = torch.cat((row, column), -1).expand(key.shape[0], key.shape[1], -1, -1)
        return torch.cat((query, products), -1), torch.cat((key, place), -1), F.pad(value, (0, height + width)), None
