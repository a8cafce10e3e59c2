"""Several networks, and a slice turned round, as one: the mean of the probabilities.

Shapes: images are (B, C, X, Y), logits (B, classes, X, Y).
"""

from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kvseg_monai.errors import InputError
from kvseg_monai.inferers.folding import Folded
from kvseg_monai.utils.flags import as_flag
from kvseg_monai.utils.settings import carried, files_of_weights, read_settings

SHARED = ("image_size", "spacing", "slice_axis", "normalization", "slice_offsets", "network_def")


class Ensemble:
    """Networks of one kind with the weights of several trainings, and how their probabilities are put together.

    A volume goes through them block by block of slices (:class:`kvseg_monai.inferers.VolumeInferer`), so that there are
    never the scores of more than one. One network without anything else gives its logits as they are; otherwise the
    result is the logarithm of the mean probability, whose softmax is that mean.

    Networks beyond the first join when their weights are loaded, by
    :class:`kvseg_monai.handlers.StrictCheckpointLoader`: where that is switched off, as on a client of federated
    training that scores weights that it was given, the network is alone.

    Args:
        ckpt_path: the file of weights, or several.
        tta: test-time augmentation: the mean also over the flips that the training had.
        flip: axes of these flips, 0 for X and 1 for Y; of two, both together are a flip too.
        temperature: logits are divided by it: above 1 makes probabilities less certain. It moves no border of a single
            network on its own grid.

    Raises:
        InputError: there is no weights file in the list, weights were trained with other settings than the first, the
            training had no flips, or the temperature is not above 0.

    Examples:
        >>> from kvseg_monai import SETR
        >>> network = SETR(1, 3, 32, size="tiny").eval()
        >>> image = torch.rand(1, 1, 32, 32)
        >>> turned = Ensemble("model.pt", tta=True, flip=[0]).forward([network], image).exp()
        >>> torch.allclose(turned.sum(1), torch.ones(1, 32, 32))
        True
        >>> mean = (network(image).softmax(1) + network(image.flip(2)).softmax(1).flip(2)) / 2
        >>> torch.allclose(turned, mean, atol=1e-6)
        True
    """

    def __init__(
        self,
        ckpt_path: str | Path | Sequence[str | Path],
        *,
        tta: bool | str = False,
        flip: Sequence[int] = (),
        temperature: float = 1.0,
    ) -> None:
        self.paths = files_of_weights(ckpt_path)
        _refuse_different_trainings(self.paths)
        self.flips = _flips(flip) if as_flag(tta, "tta") else [()]
        self.temperature = _above_zero(temperature)
        self.others: list[nn.Module] = []
        self._folded = [Folded() for _ in self.paths]

    def join(self, networks: Sequence[nn.Module]) -> None:
        """Take further networks, in place of those that joined earlier."""
        self.others = [network.eval() for network in networks]

    def ready(self, network: nn.Module) -> list[nn.Module]:
        """Return all networks for inference, ``network`` first (see :class:`kvseg_monai.inferers.folding.Folded`)."""
        networks = [network, *self.others]
        if network.training:
            return networks
        return [folded.of(each) for folded, each in zip(self._folded, networks, strict=False)]

    def forward(self, networks: Sequence[nn.Module], images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return logits, or the logarithm of the mean probability."""
        if len(networks) == len(self.flips) == self.temperature == 1:
            made: Tensor = networks[0](images, *args, **kwargs)
            return made
        total = torch.zeros(())
        for network in networks:
            for dims in self.flips:
                logits = network(images.flip(dims) if dims else images, *args, **kwargs)
                probabilities = (logits.float() / self.temperature).softmax(1)
                total = total.to(images.device) + (probabilities.flip(dims) if dims else probabilities)
        mean = total / (len(networks) * len(self.flips))
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def facts(self) -> dict[str, Any]:
        """Return what an evaluation records of it."""
        return {"networks": 1 + len(self.others), "flips": len(self.flips), "temperature": self.temperature}


def _refuse_different_trainings(paths: Sequence[Path]) -> None:
    """Compare what is recorded of the trainings; of weights without a record nothing is known."""
    known = [(path, carried(read_settings(path))) for path in paths if path.is_file()]
    known = [(path, settings) for path, settings in known if settings]
    for path, settings in known[1:]:
        first, expected = known[0]
        for name in SHARED:
            if name in settings and name in expected and settings[name] != expected[name]:
                raise InputError(
                    f"{path} was trained with {name} {settings[name]} and {first} with {expected[name]}; the weights "
                    "of an ensemble must be of one network, trained on one grid: leave one of them out"
                )


def _flips(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the dimensions of (B, C, X, Y) that each flip turns round, no flip first."""
    axes = sorted(set(axes))
    if not axes:
        raise InputError(
            "--tta is true, but these weights were trained without flips, or do not say with which: leave --tta out, "
            "or train with --flip"
        )
    if not set(axes) <= {0, 1}:
        raise InputError(f"--flip is {list(axes)}; it must be axes of a slice: [0], [1] or [0,1]")
    chosen = chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1))
    return [tuple(2 + axis for axis in each) for each in chosen]


def _above_zero(temperature: Any) -> float:
    try:
        value = float(temperature)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"--temperature is {temperature!r}; it must be a number above 0, such as 1")
    return value
