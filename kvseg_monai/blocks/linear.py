"""Linear layers that multiply at the processor's full rate.

Shapes: B batch, N tokens, C = hidden_size.
"""

import torch
import torch.nn.functional as F
from monai.networks.layers import get_act_layer
from torch import Tensor, nn

from kvseg_monai.utils.cpu import linear_library


class Linear(nn.Linear):
    """torch's linear layer of tokens, (B, N, C) -> (B, N, C'), through oneDNN where MKL is slow.

    Weights and results are those of ``nn.Linear``, the results to rounding. ``kvseg_monai.utils.cpu`` (linear_library)
    says where oneDNN takes over: in float32 on some CPUs, never on a GPU, in autocast or in an exported network.

    Examples:
        >>> import torch
        >>> Linear(8, 16)(torch.zeros(2, 12, 8)).shape
        torch.Size([2, 12, 16])
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token by itself."""
        return linear(tokens, self.weight, self.bias)


class MLP(nn.Module):
    """Two linear layers and a GELU between them: (B, N, C) -> (B, N, C); MONAI's ``MLPBlock`` with :class:`Linear`.

    Args:
        hidden_size: C.
        mlp_dim: width of the hidden layer.
        dropout: rate after each linear layer, in training only.

    Examples:
        >>> import torch
        >>> MLP(8, 32)(torch.zeros(2, 12, 8)).shape
        torch.Size([2, 12, 8])
    """

    def __init__(self, hidden_size: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = Linear(hidden_size, mlp_dim)
        self.linear2 = Linear(mlp_dim, hidden_size)
        self.fn = get_act_layer("GELU")
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token by itself."""
        return self.dropout(self.linear2(self.dropout(self.fn(self.linear1(tokens)))))


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``F.linear`` of tokens (B, N, C), computed where it is fastest."""
    if not torch.jit.is_scripting() and _by_onednn(tokens):
        image = tokens.transpose(1, 2).unsqueeze(2)  # (B, C, 1, N), channels last: oneDNN's 1 x 1 convolution
        mapped = torch.mkldnn_convolution(image, weight[:, :, None, None], bias, [0, 0], [1, 1], [1, 1], 1)
        return mapped.squeeze(2).transpose(1, 2)
    return F.linear(tokens, weight, bias)


@torch.jit.unused
def _by_onednn(tokens: Tensor) -> bool:
    plain = tokens.device.type == "cpu" and tokens.dtype == torch.float32 and tokens.ndim == 3 and tokens.numel() > 0
    if not plain or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return linear_library() == "onednn"
