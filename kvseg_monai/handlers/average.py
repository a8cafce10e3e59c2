"""A running average of the weights of a training, which is what is validated and saved."""

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from kvseg_monai.errors import InputError


class AverageWeights:
    """Handler that averages the weights over the steps of a training, exponentially.

    From the end of an epoch until the next one starts the network has the averaged weights, so that they are what is
    validated and saved; a training goes on from its own. Attach :meth:`attach` before the validation. Among the parts
    of a checkpoint it restores both. Running statistics of batch norms are averaged alike.

    The first steps are forgotten faster: after n steps the decay is (1 + n) / (10 + n), if that is less.

    Args:
        network: that is trained.
        decay: share of the average that a step leaves, such as 0.999; None averages nothing.

    Raises:
        InputError: ``decay`` is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        if decay is not None and not 0 < float(decay) < 1:
            raise InputError(f"--ema is {decay!r}; it must be a decay between 0 and 1, such as 0.999, or null for none")
        self.network = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        self.decay, self.steps = decay, 0
        self.average: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}  # of the training, while the network has the average

    def attach(self, engine: Engine) -> None:
        """Average on ``ITERATION_COMPLETED``; exchange on ``EPOCH_COMPLETED``, and back on ``EPOCH_STARTED``."""
        if self.decay is None:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.give_own)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.give_average)

    @torch.no_grad()
    def _update(self) -> None:
        assert self.decay is not None
        state = self.network.state_dict()
        if not self.average:
            self.average = {name: tensor.clone() for name, tensor in state.items()}
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        floats = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floats], [state[name] for name in floats], weight)
        for name in state.keys() - set(floats):  # counts of batches
            self.average[name].copy_(state[name])

    @torch.no_grad()
    def give_average(self) -> None:
        """Give the network the averaged weights."""
        if self.average and not self.own:
            self.own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            self.network.load_state_dict(self.average)

    def give_own(self) -> None:
        """Give the network back its own."""
        if self.own:
            self.network.load_state_dict(self.own)
            self.own = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the weights of the training where the network has the average."""
        return {"average": self.average, "own": self.own, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore both: the network has the average, until an epoch starts."""
        self.average, self.own, self.steps = dict(state["average"]), dict(state["own"]), state["steps"]


def attached(handler: AverageWeights) -> AverageWeights:
    """Return a handler that stands elsewhere in a configuration: MONAI looks for a ``_target_`` in each of a list."""
    return handler
