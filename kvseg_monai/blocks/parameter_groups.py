"""Groups of parameters for the optimizer: what decays, and what learns faster."""

from typing import Any

from torch import nn

from kvseg_monai.blocks.attention import Attention


def parameter_groups(
    network: nn.Module, *, learning_rate: float, weight_decay: float, query_bias_lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters for AdamW: matrices and kernels decay; biases, norms and positional weights do not.

    Args:
        network: the network.
        learning_rate: of all but the biases of the queries.
        weight_decay: of matrices and kernels.
        query_bias_lr_scale: how many times as fast the biases of the queries learn, in attention without a query those
            of the keys. Such a bias adds to each logit what depends on the key alone: which tokens all others
            attend to. In a trained QKV attention that can be most of the logits, and the query's matrix with the mean
            of the tokens makes it, C weights for each number; a key that is its own query has one bias instead, and
            Adam moves every number by as much.

    Examples:
        >>> import torch
        >>> from kvseg_monai import SETR
        >>> network = SETR(1, 4, 64, size="tiny")
        >>> groups = parameter_groups(network, learning_rate=1e-3, weight_decay=0.05, query_bias_lr_scale=30)
        >>> [(len(group["params"]), group["weight_decay"], group.get("lr")) for group in groups]
        [(36, 0.05, None), (61, 0.0, None), (6, 0.0, 0.03)]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    """
    biases = {id(bias) for bias in query_biases(network)}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        if query_bias_lr_scale != 1 and id(weight) in biases:
            fast.append(weight)
        else:
            (decayed if weight.ndim > 1 and "position" not in name else free).append(weight)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
        {"params": fast, "weight_decay": 0.0, "lr": query_bias_lr_scale * learning_rate},
    ]
    return [group for group in groups if group["params"]]


def query_biases(network: nn.Module) -> list[nn.Parameter]:
    """Return the bias of whatever makes the queries in each attention of ours: the key's own where it is the query.

    Examples:
        >>> from kvseg_monai import SETR
        >>> [tuple(bias.shape) for bias in query_biases(SETR(1, 4, 64, size="tiny"))][:2]
        [(192,), (192,)]
    """
    found = []
    for attention in network.modules():
        if isinstance(attention, Attention):
            projection = attention.key if attention.query is None else attention.query
            last = [layer for layer in projection.modules() if isinstance(layer, nn.Linear)][-1]
            found += [] if last.bias is None else [last.bias]
    return found
