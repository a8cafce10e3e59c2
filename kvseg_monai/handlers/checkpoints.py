"""Handlers that save checkpoints while training, and load them strictly."""

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.steps import is_at_end, limit_of, set_progress
from kvseg_monai.inferers import Ensemble
from kvseg_monai.utils.files import move, refuse_folders, write_text
from kvseg_monai.utils.flags import as_flag
from kvseg_monai.utils.model_files import BEST, RECORD, keep_earlier, keep_earlier_run, read_record, record_of
from kvseg_monai.utils.old_names import CHECKPOINT
from kvseg_monai.utils.run_record import RunRecord
from kvseg_monai.utils.safetensors_file import beside, digest_of_state
from kvseg_monai.utils.settings import carried, files_of_weights
from kvseg_monai.utils.weights import load_weights, save_whole, set_checksum_aside

logger = logging.getLogger(__name__)

CANDIDATE = "model_candidate.pt"
LATER = ("average", "clock")  # parts that checkpoints of earlier versions have not
LAST = "last.ckpt"  # no .pt: MONAI Label offers each of these as a model, and by default the one of the shortest name


class StrictCheckpointLoader:
    """Handler that loads weights when an engine starts, strictly (see :func:`load_weights`).

    MONAI's ``CheckpointLoader`` stops with a stack of key names on a misfit and is usually disabled when the file is
    missing, which leaves random weights; this one says what is wrong. It has MONAI's name in its own, since by that
    MONAI's federated client, ``MonaiAlgo``, knows what to switch off where it evaluates weights that it was given.

    Args:
        path: the file of weights, or several.
        network: that gets the weights, of several the first.
        device: where they are loaded to.
        ensemble: that copies of the network with the other weights join.

    Raises:
        InputError: there are several files, and no ensemble.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        network: nn.Module,
        device: torch.device | str = "cpu",
        *,
        ensemble: Ensemble | None = None,
    ) -> None:
        self.paths, self.network, self.device = files_of_weights(path), _unwrapped(network), device
        self.ensemble = ensemble
        if len(self.paths) > 1 and ensemble is None:
            raise InputError(f"{path} are several files of weights, which inference and evaluation alone take")

    def attach(self, engine: Engine) -> None:
        """Load on ``STARTED``."""
        engine.add_event_handler(Events.STARTED, self._load)

    def _load(self) -> None:
        load_weights(self.network, self.paths[0], device=self.device)
        others = [copy.deepcopy(self.network) for _ in self.paths[1:]]
        for network, path in zip(others, self.paths[1:], strict=True):
            load_weights(network, path, device=self.device)
        if self.ensemble is not None:
            self.ensemble.join(others)


LoadWeights = StrictCheckpointLoader  # the name in bundles that were packed earlier


class Checkpoints:
    """Handler that writes ``model.pt`` (best validation score) and ``last.ckpt`` (all that a resumed run needs).

    Beside them ``training.json`` is the record of the run. All appear only when whole, after every epoch that was
    validated and at the end, so that a run may be killed at any time. With ``resume`` a run goes on from ``last.ckpt``,
    the best score so far included, where MONAI's ``CheckpointSaver`` would let the first epoch after a resume replace
    a better model. A run without any score keeps its last weights.

    A ``model.pt`` that was there before is not touched while a run lasts: its score on the same validation cases is
    measured first, the run writes ``model_candidate.pt``, and only when it is done and has scored higher does that
    take the place of ``model.pt``, which is kept under a name with its date. So a training that breaks or ends worse,
    as one in MONAI Label on a few cases may, never costs the model that is in use. What else an earlier run left is
    renamed, not overwritten. An engine that runs again where it stopped, as in each round of federated training, goes
    on with the same run.

    Args:
        folder: where the files are.
        network: whose weights are the model.
        parts: further objects with a state dict, such as optimizer and scheduler, by name.
        evaluator: MONAI evaluator with a key metric; None keeps the newest weights as the best.
        resume: go on from ``last.ckpt`` where there is one; true or false, also as text.
        device: where weights are loaded to.
        configuration: what :func:`kvseg_monai.utils.describe_configuration` returns, for ``training.json``.

    Raises:
        InputError: at the start, where the ``model.pt`` that is there belongs to another network, a folder is where a
            file goes, or ``resume`` would replace weights that the network was given since the handler was made.
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
        configuration: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = Path(folder)
        self.network, self.parts, self.evaluator = _unwrapped(network), dict(parts), evaluator
        self.resume, self.device, self.configuration = as_flag(resume, "resume"), device, configuration
        self.best = -float("inf")
        self.earlier_score: float | None = None  # the score of the model that was there
        self.record: RunRecord | None = None
        self.made = digest_of_state(self.network.state_dict()) if self.resume else ""

    def attach(self, engine: Engine) -> None:
        """Restore on ``STARTED``, save on ``EPOCH_COMPLETED``, decide on ``COMPLETED``; attach after the validation."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._decide)

    def _start(self, engine: Engine) -> None:
        if self.record is not None and engine.state.epoch > 0:
            return
        candidate = self.folder / CANDIDATE
        written = [self.folder / name for name in (BEST, LAST, RECORD, CANDIDATE)]
        written += [record_of(candidate), beside(self.folder / BEST), beside(candidate)]
        refuse_folders(written)  # before hours, not after them
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.resume and (self.folder / LAST).is_file():
            self._restore(engine)
        else:
            self.earlier_score = self._score_of_earlier_model() if (self.folder / BEST).is_file() else None
            if _is_first_process():
                leftover = [self.folder / LAST, candidate, beside(candidate), record_of(candidate)]
                keep_earlier_run(*leftover, *([self.folder / RECORD] if self.earlier_score is None else []))
        earlier = read_record(record_of(self._target))
        self.record = RunRecord(self.network, self.device, configuration=self.configuration, earlier=earlier)

    @property
    def _target(self) -> Path:
        return self.folder / (BEST if self.earlier_score is None else CANDIDATE)

    def _score_of_earlier_model(self) -> float:
        """Measure ``model.pt`` on this run's validation cases; the network is as before afterwards."""
        own = {name: weight.clone() for name, weight in self.network.state_dict().items()}
        load_weights(self.network, self.folder / BEST, device=self.device)
        score = -float("inf")
        if self.evaluator is not None:
            with self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self.evaluator.terminate):
                self.evaluator.run(0)  # epoch 0, which is none of the run's; MONAI would go on with epoch 1
            score = _number(self.evaluator)
            logger.info("the %s that is there scores %.4f; it stays until this run ends higher", BEST, score)
        self.network.load_state_dict(own)
        return score

    def _restore(self, engine: Engine) -> None:
        path = self.folder / LAST
        if digest_of_state(self.network.state_dict()) != self.made:
            raise InputError(
                f"the network was given weights, as in federated training, and resume would replace them by those of "
                f"{path}; leave resume out"
            )
        saved = load_weights(self.network, path, device=self.device)
        saved = {CHECKPOINT.get(name, name): value for name, value in saved.items()}
        for name, part in self.parts.items():
            if name in saved or name not in LATER:
                part.load_state_dict(saved[name])
        set_progress(engine, saved["epoch"], saved["iteration"])
        self.best, self.earlier_score = saved["best"], saved["earlier_score"]
        if is_at_end(engine):
            limit = limit_of(engine)
            done = engine.state.iteration if limit == "steps" else engine.state.epoch
            raise InputError(
                f"{path} has {done} {limit} already and --max_{limit} is {getattr(engine.state, f'max_{limit}')}; "
                f"raise --max_{limit} to train on, or leave --resume out to start anew"
            )
        logger.info("training goes on after epoch %d (%s)", saved["epoch"], path)

    def _save(self, engine: Engine) -> None:
        if not _is_first_process():
            return
        score = self._score(engine)
        at_end = is_at_end(engine)
        if score is None and not at_end:
            return
        weights = self.network.state_dict()
        better = score is not None and score > self.best
        if better or (at_end and self.best == -float("inf")):
            self.best = score if better and score is not None else self.best
            save_whole(weights, self._target, settings=carried(self.configuration.get("settings", {})))
        state = {name: part.state_dict() for name, part in self.parts.items()}
        progress = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        save_whole(
            {"network": weights, **state, **progress, "best": self.best, "earlier_score": self.earlier_score},
            self.folder / LAST,
        )
        assert self.record is not None  # since the start
        facts = {**self.record.facts(), "epochs": engine.state.epoch, "steps": engine.state.iteration}
        if (minutes := getattr(engine.state, "max_minutes", None)) is not None:
            facts["max_minutes"] = minutes
        write_text(record_of(self._target), json.dumps(facts, indent=1) + "\n", keep=True)

    def _score(self, engine: Engine) -> float | None:
        """Return this epoch's validation score, None where it was not validated."""
        if self.evaluator is None:
            return float(engine.state.epoch)
        return _number(self.evaluator) if self.evaluator.state.epoch == engine.state.epoch else None

    def _decide(self, engine: Engine) -> None:
        """Let the candidate take the place of the model that was there, if it scored higher."""
        candidate = self.folder / CANDIDATE
        if self.earlier_score is None or not _is_first_process() or not candidate.is_file():
            return
        if self.best > self.earlier_score:
            model = self.folder / BEST
            keep_earlier(model)
            move(record_of(candidate), record_of(model))
            set_checksum_aside(model)
            move(candidate, model)
            if beside(candidate).is_file():  # not of a run that an earlier version began
                move(beside(candidate), beside(model))
            self.earlier_score = None
        else:
            logger.warning(
                "this run's best validation score is %.4f, that of the %s that was there %.4f: %s stays, and the new "
                "weights are kept as %s; to use them all the same: python -m kvseg_monai.deploy BUNDLE --weights %s",
                *(self.best, BEST, self.earlier_score, BEST, CANDIDATE, candidate),
            )


def _number(evaluator: Engine) -> float:
    return float(evaluator.state.metrics[evaluator.state.key_metric_name])


def _unwrapped(network: nn.Module) -> nn.Module:
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
