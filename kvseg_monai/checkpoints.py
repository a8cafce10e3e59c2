"""Weights on disk: kept while training, found again after an interruption, and never guessed."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.files import whole_file, write_text
from kvseg_monai.overrides import as_flag
from kvseg_monai.run_record import RunRecord

logger = logging.getLogger(__name__)

BEST = "model.pt"
LAST = "last.pt"
RECORD = "training.json"


def load_weights(network: nn.Module, path: str | Path, *, device: torch.device | str = "cpu") -> None:
    """Load a state dict strictly: every weight must be there and fit.

    Raises:
        InputError: when the file is missing or unreadable, or belongs to another network, size or attention kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"the weights {path} are missing, and nothing is predicted with random ones: train first "
            "(configs/train.json), or give a file of trained weights (--ckpt_path, or --weights to start from them)"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as weights ({type(error).__name__}); give a whole .pt file") from error
    state = state.get("network", state) if isinstance(state, Mapping) else {}
    _refuse_misfits(path, network.state_dict(), state)
    network.load_state_dict(state)
    logger.info("weights loaded from %s", path)


def _refuse_misfits(path: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    shapes = [name for name in wanted if name in found and wanted[name].shape != getattr(found[name], "shape", None)]
    if missing or unknown or shapes:
        examples = ", ".join((missing + unknown + shapes)[:3])
        raise InputError(
            f"{path} holds the weights of another network: {len(missing)} weights are missing, {len(unknown)} unknown "
            f"and {len(shapes)} of another shape (as {examples}); use the bundle that they were trained with, and the "
            "same --network_def#attention, size, decoder and --image_size"
        )


class LoadWeights:
    """Handler that loads weights when an engine starts, strictly (see :func:`load_weights`).

    MONAI's ``CheckpointLoader`` stops with a stack of key names on a misfit and is usually disabled when the file is
    missing, which leaves random weights; this one says what is wrong.
    """

    def __init__(self, path: str, network: nn.Module, device: torch.device | str = "cpu") -> None:
        self.path, self.network, self.device = path, _unwrapped(network), device

    def attach(self, engine: Engine) -> None:
        """Load on ``STARTED``."""
        engine.add_event_handler(Events.STARTED, lambda: load_weights(self.network, self.path, device=self.device))


class Checkpoints:
    """Handler that writes ``model.pt`` (best validation score) and ``last.pt`` (all that a resumed run needs).

    Beside them ``training.json`` says how they came to be. All appear only when whole, after every epoch that was
    validated and at the end, so that a run may be killed at any time. With ``resume`` a run goes on from ``last.pt``,
    the best score so far included, where MONAI's ``CheckpointSaver`` would let the first epoch after a resume replace
    a better model. Without it, what an earlier run left is renamed, not overwritten. A run without any score keeps its
    last weights as the model.

    Args:
        folder: where the files are.
        network: whose weights are the model.
        parts: further objects with a state dict, such as optimizer and scheduler, by name.
        evaluator: MONAI evaluator with a key metric; None keeps the newest weights as the best.
        resume: go on from ``last.pt`` where there is one; true or false, also as text.
        device: where weights are loaded to.
    """

    def __init__(
        self,
        folder: str,
        network: nn.Module,
        *,
        parts: Mapping[str, Any],
        evaluator: Engine | None = None,
        resume: bool | str = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder = Path(folder)
        self.network, self.parts, self.evaluator = _unwrapped(network), dict(parts), evaluator
        self.resume, self.device = as_flag(resume, "resume"), device
        self.best = -float("inf")

    def attach(self, engine: Engine) -> None:
        """Restore on ``STARTED``, save on ``EPOCH_COMPLETED``; attach after the validation handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _start(self, engine: Engine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.resume and (self.folder / LAST).is_file():
            self._restore(engine)
        elif _is_first_process():
            set_aside(self.folder)
        earlier = self.folder / RECORD
        told = json.loads(earlier.read_text(encoding="utf-8")) if earlier.is_file() else {}
        self.record = RunRecord(self.network, self.device, earlier=told)

    def _restore(self, engine: Engine) -> None:
        path = self.folder / LAST
        load_weights(self.network, path, device=self.device)
        saved = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        engine.state.epoch, engine.state.iteration = saved["epoch"], saved["iteration"]
        self.best = saved["best"]
        if saved["epoch"] >= engine.state.max_epochs:
            raise InputError(
                f"{path} has {saved['epoch']} epochs already and --max_epochs is {engine.state.max_epochs}; "
                "raise --max_epochs to train on, or leave --resume out to start anew"
            )
        logger.info("training goes on after epoch %d (%s)", saved["epoch"], path)

    def _save(self, engine: Engine) -> None:
        if not _is_first_process():
            return
        score = self._score(engine)
        at_end = engine.state.epoch >= engine.state.max_epochs
        if score is None and not at_end:
            return
        weights = self.network.state_dict()
        better = score is not None and score > self.best
        if better or (at_end and self.best == -float("inf")):
            self.best = score if better else self.best
            save_whole(weights, self.folder / BEST)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        progress = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "best": self.best}
        save_whole({"network": weights, **state, **progress}, self.folder / LAST)
        told = {**self.record.facts(), "epochs": engine.state.epoch}
        write_text(self.folder / RECORD, json.dumps(told, indent=1) + "\n")

    def _score(self, engine: Engine) -> float | None:
        """Return this epoch's validation score, None where it was not validated."""
        if self.evaluator is None:
            return float(engine.state.epoch)
        if self.evaluator.state.epoch != engine.state.epoch:
            return None
        return float(self.evaluator.state.metrics[self.evaluator.state.key_metric_name])


def set_aside(folder: Path) -> None:
    """Rename the weights of an earlier run in ``folder``, and their record, to a name with their date, and say so."""
    for name in (BEST, LAST, RECORD):
        path = folder / name
        if path.exists():
            date = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
            kept = path.with_name(f"{path.stem}_{date}{path.suffix}")
            path.rename(kept)
            logger.warning("an earlier %s was there; it is kept as %s", name, kept.name)


def save_whole(state: Mapping[str, Any], path: Path) -> None:
    """Save a state dict; a reader, or a run after a crash, never meets half a file."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def _unwrapped(network: nn.Module) -> nn.Module:
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
