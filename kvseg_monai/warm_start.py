r"""The key that stands in best for a trained query and key, in closed form.

Shapes: h heads, D channels per head, C input channels (one more with a bias, see :func:`homogeneous`).

Attention with a query sees the logits x_i^T M x_j with M = Wq^T Wk; without one it sees x_i^T P x_j with P = W^T W,
which is symmetric and has no negative eigenvalue. The P nearest to M in the Frobenius norm keeps the positive
eigenpairs (L, U) of S = (M + M^T) / 2, so that W = sqrt(L) U^T. What is lost is M's antisymmetric part and the negative
eigenvalues of S. The rank D of W loses nothing: S = (Wq^T Wk + Wk^T Wq) / 2 never has more than D positive eigenvalues.
"""

import torch
import torch.nn.functional as F
from monai.networks.blocks import SABlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from kvseg_monai.blocks import ATTENTION_KINDS, KeyBias
from kvseg_monai.blocks.key_value import KeyValueSABlock, KeyValueWindowAttention


def homogeneous(projection: nn.Linear, num_heads: int) -> Tensor:
    """Return the projection per head in float64, (h, D, C), or (h, D, C + 1) with the bias as the weight of input 1."""
    matrix = projection.weight.detach()
    if projection.bias is not None:
        matrix = torch.cat((matrix, projection.bias.detach()[:, None]), 1)
    return matrix.double().unflatten(0, (num_heads, -1))


def closest_key(query: Tensor, key: Tensor) -> tuple[Tensor, float]:
    r"""Find W (h, D, C) with W^T W nearest to query^T key, head by head.

    S acts within the at most 2D directions that the rows of query and key span, so its eigenvectors are those of a
    (2D, 2D) matrix in an orthonormal basis of them.

    Where S has fewer than D positive eigenvalues the other rows of W are zero. Such a row adds nothing to the logits
    and never will: they are quadratic in it, so its gradient is zero too. It takes a rank-deficient M, or one with a
    negative part as for Wk = -Wq, for which all rows are zero and each token attends evenly to all.

    Args:
        query: Wq per head, (h, D, C), in float64.
        key: Wk per head, likewise.

    Returns:
        W, and the relative fit error ||M - W^T W|| / ||M|| over all heads. With biases M also holds terms that are
        constant for each query, which a softmax cancels: the attention maps may be nearer than the error says.
    """
    head_dim = query.shape[1]
    basis, factor = torch.linalg.qr(torch.cat((query, key), 1).mT)  # (h, C, r), (h, r, 2D), r = min(C, 2D)
    product = factor[..., :head_dim] @ factor[..., head_dim:].mT  # M in that basis, (h, r, r)
    values, vectors = torch.linalg.eigh((product + product.mT) / 2)  # ascending
    values, vectors = values[..., -head_dim:].clamp(min=0), vectors[..., -head_dim:]
    error = (product - (vectors * values[:, None]) @ vectors.mT).norm() / product.norm().clamp(min=1e-300)
    rows = ((basis @ vectors) * values.sqrt()[:, None]).mT.flip(1)  # (h, D, C), the largest eigenvalue first
    return F.pad(rows, (0, 0, 0, head_dim - rows.shape[1])), error.item()


def turned_to(rows: Tensor, target: Tensor) -> Tensor:
    """Rotate each head of ``rows`` (h, D, C) towards ``target``: W^T W stays, and W = target where that is possible.

    Needed where the query meets more than the key, as the tables of a relative position.
    """
    left, _, right = torch.linalg.svd(target @ rows.mT)
    return left @ right @ rows


@torch.no_grad()
def fit_key_(new: nn.Linear, query: nn.Linear, key: nn.Linear, *, num_heads: int, align: bool = False) -> float:
    """Overwrite ``new`` with the closest key of a trained ``query`` and ``key``; returns the relative fit error.

    Without a bias in the source there is no bias column. With ``align`` the new key is turned towards the query.
    """
    trained = homogeneous(query, num_heads)
    rows, error = closest_key(trained, homogeneous(key, num_heads))
    rows = (turned_to(rows, trained) if align else rows).flatten(0, 1)  # (h * D, C)
    new.weight.copy_(rows[:, : new.in_features])
    if new.bias is not None:
        new.bias.copy_(rows[:, -1])
    return error


def projections(source: SABlock | WindowAttention) -> list[nn.Linear]:
    """Return query, key and value of MONAI's module as linear maps of their own, be they fused there or not."""
    if not isinstance(source.qkv, nn.Linear):
        return [source.to_q, source.to_k, source.to_v]
    weights = source.qkv.weight.detach().chunk(3)
    biases = [None] * 3 if source.qkv.bias is None else source.qkv.bias.detach().chunk(3)
    return [_linear(weight, bias, source.qkv) for weight, bias in zip(weights, biases, strict=True)]


def _linear(weight: Tensor, bias: Tensor | None, like: nn.Linear) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias is not None, device=weight.device)
    layer.weight = nn.Parameter(weight.clone(), like.weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), like.bias.requires_grad)
    return layer


def key_value_form(
    source: SABlock | WindowAttention, kind: str, *, warm_start: bool, tokens: int
) -> tuple[nn.Module, float | None]:
    """Return the Key-Value form of one attention and its fit error (None without a warm start)."""
    query, key, value = projections(source)
    # drawn afresh, as both of MONAI's modules draw theirs
    new = nn.Linear(key.in_features, key.out_features, key.bias is not None).to(key.weight)
    relative = getattr(source, "rel_positional_embedding", None) is not None
    error = fit_key_(new, query, key, num_heads=source.num_heads, align=relative) if warm_start else None
    new.requires_grad_(key.weight.requires_grad)
    if isinstance(source, WindowAttention):
        return KeyValueWindowAttention(source, key=new, value=value).train(source.training), error
    position = ATTENTION_KINDS[kind].position
    part = position and position(head_dim=source.dim_head, grid=(1, tokens)).to(key.weight)
    if warm_start and isinstance(part, KeyBias):
        _start_without_position_(part)
    return KeyValueSABlock(source, key=new, value=value, position=part).train(source.training), error


@torch.no_grad()
def _start_without_position_(position: KeyBias) -> None:
    """Set the temperature to 1 and each key's bias to 0, so that trained weights go on as they are."""
    position.weight.zero_()
    position.weight[: position.query_channels] = 1 / position.query_channels
