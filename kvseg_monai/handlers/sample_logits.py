"""An ignite handler that keeps logits and labels of a sample of voxels, to measure how good the probabilities are.

Shapes: logits are (1, K, X, Y, Z) on the network's own grid, the label (1, 1, X', Y', Z') on the file's; a sample is
(V, K) and (V,).
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.calibration import MARGIN, confidences, expected_calibration_error
from kvseg_monai.utils.files import atomic_write, refuse_foreign
from kvseg_monai.utils.flags import as_count, as_flag
from kvseg_monai.utils.tensors import plain

logger = logging.getLogger(__name__)

SAMPLE = "calibration.npz"


class SampleLogits:
    """Handler that writes ``calibration.npz``: ``logits`` (V, K) float32 and ``labels`` (V,) uint8 of voxels.

    The voxels are drawn evenly, the same in each run, from the box round all that is labelled or predicted in a case
    (see :data:`kvseg_monai.metrics.calibration.PROTOCOL`). A voxel's label is that of the label file's voxel in which
    its centre lies. A case takes ``voxels`` times K + 1 numbers of memory, whatever its size.

    Args:
        output_dir: where the file goes.
        enabled: whether to do anything at all; true or false, also as text.
        voxels: of a case, at most.

    Raises:
        InputError: at the start, where the file would take the place of one that is not ours.
    """

    def __init__(self, output_dir: str | os.PathLike[str], *, enabled: bool | str = True, voxels: int = 10000) -> None:
        self.path = Path(output_dir) / SAMPLE
        self.enabled, self.voxels = as_flag(enabled, "calibration"), as_count(voxels, "calibration_voxels") or 1
        self._drawn: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator: what the network returns is there before the postprocessing alone."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._draw)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        refuse_foreign([self.path])
        self._drawn = []

    def _draw(self, engine: Engine) -> None:
        logits, label = engine.state.output["pred"], engine.state.output["label"]
        to_label = torch.linalg.solve(_affine(label), _affine(logits))
        self._drawn.append(draw_voxels(plain(logits)[0], plain(label)[0, 0], to_label, voxels=self.voxels))

    def _write(self, engine: Engine) -> None:
        if not self._drawn:
            raise InputError("no case was scored, so there is no voxel to calibrate on; give one valid case")
        logits, labels = (torch.cat(parts) for parts in zip(*self._drawn, strict=True))
        with atomic_write(self.path) as temporary:
            np.savez(temporary, logits=logits.numpy(), labels=labels.numpy())
        error = expected_calibration_error(*confidences(logits, labels))
        logger.info("expected calibration error %.4f over %d voxels, kept in %s", error, len(labels), self.path)


def read_sample(path: Path) -> tuple[Tensor, Tensor]:
    """Return the logits and labels of a ``calibration.npz``.

    Raises:
        InputError: the file is not there, or not one.
    """
    try:
        with np.load(path) as found:
            return torch.from_numpy(found["logits"]), torch.from_numpy(found["labels"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is no sample of voxels; write it by evaluate.json with --calibration true") from error


def draw_voxels(logits: Tensor, label: Tensor, to_label: Tensor, *, voxels: int) -> tuple[Tensor, Tensor]:
    """Return logits (V, K) and labels (V,) of at most ``voxels`` voxels of a case.

    Args:
        logits: (K, X, Y, Z).
        label: (X', Y', Z').
        to_label: (4, 4), from voxels of the one grid to voxels of the other.
        voxels: how many are drawn.
    """
    low, high = _box(logits, label, to_label)
    sides = (high - low).tolist()
    count = int(np.prod(sides))
    drawn = np.random.default_rng(0).choice(count, min(voxels, count), replace=False, shuffle=False)
    places = torch.from_numpy(np.stack(np.unravel_index(drawn, sides), -1)) + low
    there = (places.double() @ to_label[:3, :3].T + to_label[:3, 3]).round().long()
    inside = ((there >= 0) & (there < torch.tensor(label.shape))).all(-1)
    x, y, z = places[inside].to(logits.device).unbind(-1)
    a, b, c = there[inside].to(label.device).unbind(-1)
    return logits[:, x, y, z].T.float().cpu(), label[a, b, c].to(torch.uint8).cpu()


def _box(logits: Tensor, label: Tensor, to_label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first voxel, and the one past the last, of what is labelled or predicted and its margin."""
    shape = torch.tensor(logits.shape[1:])
    labelled = torch.nonzero(label).cpu().double()
    back = torch.linalg.inv(to_label)
    found = torch.cat([(labelled @ back[:3, :3].T + back[:3, 3]).round().long(), torch.nonzero(logits.argmax(0)).cpu()])
    if not len(found):
        return torch.zeros_like(shape), shape
    margin = torch.tensor([MARGIN, MARGIN, 0])
    low, high = found.amin(0) - margin, found.amax(0) + margin + 1
    return low.clamp(min=0).minimum(shape - 1), high.clamp(min=1).minimum(shape)


def _affine(volume: Tensor) -> Tensor:
    """Return the affine (4, 4) of a volume, or of a batch of one."""
    found = getattr(volume, "affine", None)
    if found is None:
        raise InputError("a volume has no affine, so prediction and label cannot be laid over each other")
    return torch.as_tensor(found).cpu().double().reshape(4, 4)
