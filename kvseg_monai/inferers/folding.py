"""Networks for inference: each batch norm folded into the convolution before it, weights laid out channels last."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Folded:
    """The folded copy of a network, made anew when the network's weights or statistics have changed."""

    def __init__(self) -> None:
        self._state: tuple[int, ...] = ()
        self._copy: nn.Module | None = None

    def of(self, network: nn.Module) -> nn.Module:
        """Return the copy of a network; the network itself where something listens to its modules or it is compiled."""
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        if isinstance(network, torch.jit.ScriptModule) or _is_watched(network):
            return network
        tensors = [*network.parameters(), *network.buffers()]
        state = (id(network), *(each for tensor in tensors for each in (tensor.data_ptr(), tensor._version)))
        if self._copy is None or state != self._state:
            self._state, self._copy = state, fold(network)
        return self._copy


def fold(network: nn.Module) -> nn.Module:
    """Return a copy of a network for inference; its other weights are the network's own, not copied.

    Of a sequence, a convolution and the batch norm after it become one convolution; results differ by rounding alone.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    folded = copy.deepcopy(network, shared).eval()
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            convolution, norm = sequence[index], sequence[index + 1]
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                sequence[index], sequence[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return folded


def _is_watched(network: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
