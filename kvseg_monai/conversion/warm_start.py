"""Warm start of Key-Value attention from trained queries, keys and values.

The key itself is fitted in :mod:`kvseg_monai.conversion.closest_key`. Shapes: B batch, N tokens, h heads, D = head_dim,
C = hidden_size.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from monai.networks.blocks import SABlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from kvseg_monai.blocks import ATTENTION_KINDS, KeyBias
from kvseg_monai.conversion.closest_key import Moments, closest_key, closest_key_on, rotated_towards
from kvseg_monai.conversion.modules import KeyValueSABlock, KeyValueWindowAttention


def homogeneous(projection: nn.Linear, num_heads: int) -> Tensor:
    """Return the projection per head in float64, (h, D, C), or (h, D, C + 1) with the bias as the weight of input 1."""
    matrix = projection.weight.detach()
    if projection.bias is not None:
        matrix = torch.cat((matrix, projection.bias.detach()[:, None]), 1)
    return matrix.double().unflatten(0, (num_heads, -1))


@torch.no_grad()
def measure_tokens(network: nn.Module, attentions: Iterable[nn.Module], images: Tensor) -> dict[nn.Module, Moments]:
    """Run ``network`` once, in evaluation mode, over ``images``; returns what each attention that ran was given."""
    sums: dict[nn.Module, Tensor] = {}

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tokens = F.pad(inputs[0].flatten(0, -2).double(), (0, 1), value=1.0)  # (B, N, C) -> (B * N, C + 1), [x, 1]
        sums[module] = sums.get(module, 0) + tokens.mT @ tokens

    hooks = [attention.register_forward_pre_hook(add) for attention in attentions]
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()(images.to(next(network.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return {module: Moments.of(total / total[-1, -1]) for module, total in sums.items()}


@torch.no_grad()
def fit_key_(
    new: nn.Linear,
    query: nn.Linear,
    key: nn.Linear,
    *,
    num_heads: int,
    align: bool = False,
    tokens: Moments | None = None,
) -> float:
    """Overwrite ``new`` with the closest key of a trained ``query`` and ``key``; returns the relative fit error.

    Without a bias in the source there is no bias column. With ``align`` the new key is turned towards the query. With
    ``tokens`` it is the closest on these.
    """
    trained, other = homogeneous(query, num_heads), homogeneous(key, num_heads)
    rows, error = closest_key(trained, other) if tokens is None else closest_key_on(tokens, trained, other)
    rows = (rotated_towards(rows, trained) if align else rows).flatten(0, 1)  # (h * D, C)
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
    source: SABlock | WindowAttention, kind: str, *, warm_start: bool, token_count: int, tokens: Moments | None = None
) -> tuple[nn.Module, float | None]:
    """Return the Key-Value form of one attention and its fit error (None without a warm start).

    ``tokens`` are not used where the query also meets the tables of a relative position, which no moment describes.
    """
    query, key, value = projections(source)
    # drawn afresh, as both of MONAI's modules draw theirs
    new = nn.Linear(key.in_features, key.out_features, key.bias is not None).to(key.weight)
    relative = getattr(source, "rel_positional_embedding", None) is not None
    error = None
    if warm_start:
        tokens = None if relative else tokens
        error = fit_key_(new, query, key, num_heads=source.num_heads, align=relative, tokens=tokens)
    new.requires_grad_(key.weight.requires_grad)
    if isinstance(source, WindowAttention):
        return KeyValueWindowAttention(source, key=new, value=value).train(source.training), error
    position = ATTENTION_KINDS[kind].position
    part = position and position(head_dim=source.dim_head, grid=(1, token_count)).to(key.weight)
    if warm_start and isinstance(part, KeyBias):
        _start_without_position_(part)
    return KeyValueSABlock(source, key=new, value=value, position=part).train(source.training), error


@torch.no_grad()
def _start_without_position_(position: KeyBias) -> None:
    """Set the temperature to 1 and each key's bias to 0, so that trained weights go on as they are."""
    position.weight.zero_()
    position.weight[: position.query_channels] = 1 / position.query_channels
