"""Handlers of a training: a seed per epoch, a stop at NaN, a progress bar; and what TensorBoard shows."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import Dataset, set_rnd
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from kvseg_monai.errors import InputError
from kvseg_monai.transforms.slices import CASE

STEPS_TOGETHER = 32  # on a GPU: between two looks at the losses, each of which waits for it


class SeedEpochs:
    """Handler that seeds the order of the data and the augmentation anew in each epoch, from the seed and the epoch.

    What an epoch shows then depends on nothing else: not on how many random numbers the network drew for its weights,
    so that two networks learn from the same batches, and not on an interruption, so that a resumed run does too. For
    that an epoch of another length than the data's, by ``steps_per_epoch``, begins with a new order as well: a shorter
    one shows the first batches of it, a longer one goes on with further orders of all cases.

    The trainer's ``prepare_batch`` is seeded as well, where it is random.

    Args:
        dataset: whose random transforms are seeded; in worker processes MONAI's loader seeds them, from torch's.
        seed: the run's.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.first = True  # of the epochs since the engine was started, which has no order yet

    def attach(self, engine: Engine) -> None:
        """Seed on ``EPOCH_STARTED``, before the loader draws the epoch's order."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed)

    def _start(self) -> None:
        self.first = True

    def _seed(self, engine: Engine) -> None:
        seeds = np.random.SeedSequence([self.seed, engine.state.epoch]).generate_state(2)  # no two epochs alike
        seed, seed_of_batches = (int(number) for number in seeds)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
        set_rnd(getattr(engine, "prepare_batch", None), seed_of_batches)
        loader = engine.state.dataloader
        if not self.first and engine.state.epoch_length != len(loader):
            engine.set_data(loader)  # else the order of the epoch before would be gone on with
        self.first = False


@dataclass(frozen=True)
class _Step:
    """A step of a training that is not looked at yet: its number in its epoch, its loss and norm (2,), its cases."""

    epoch: int
    number: int
    numbers: Tensor
    cases: Sequence[str]


class StopOnNan:
    """Handler that ends a training whose loss or weights have become NaN or infinite, with step and cases.

    ignite's ``TerminateOnNan`` ends the run as if it were done. Attach this one before those that save, so that what
    was saved before stays. Under mixed precision a step whose gradients alone are infinite is left out by the scaler
    and is no reason to stop. Of several processes all stop, in the same step.

    To look at a number a GPU is waited for. There the numbers of some steps are kept on it and looked at together, at
    the latest at the end of the epoch, before anything is validated or saved; the first bad step is the one named.

    Args:
        network: that is trained.
        interval: after how many steps they are looked at; None for each on the CPU, :data:`STEPS_TOGETHER` on a GPU.

    Raises:
        InputError: saying what was not finite, in which epoch and step, and with which volumes.
    """

    def __init__(self, network: nn.Module, *, interval: int | None = None) -> None:
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        on_gpu = any(weight.is_cuda for weight in self.weights)
        self.interval = interval or (STEPS_TOGETHER if on_gpu else 1)
        self.waiting: list[_Step] = []

    def attach(self, engine: Engine) -> None:
        """Note on ``ITERATION_COMPLETED``, after the optimizer's step; look at the end of an epoch as well."""
        engine.add_event_handler(Events.STARTED, self.waiting.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._inspect)

    def _note(self, engine: Engine) -> None:
        loss = engine.state.output["loss"].detach().float()
        norm = nn.utils.get_total_norm([weight.detach() for weight in self.weights])  # not finite if one of them is not
        number = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        cases = list(dict.fromkeys(engine.state.batch.get(CASE, [])))
        self.waiting.append(_Step(engine.state.epoch, number, torch.stack((loss, norm.to(loss))), cases))
        if number % self.interval == 0:
            self._inspect(engine)

    def _inspect(self, engine: Engine) -> None:
        if not self.waiting:
            return
        steps, numbers = self.waiting[:], torch.stack([step.numbers for step in self.waiting])  # (steps, 2)
        self.waiting.clear()
        if _everywhere(numbers.isfinite().all()):
            return
        found = _from_all([(*pair, step.cases) for step, pair in zip(steps, numbers.tolist(), strict=True)])
        first, of_processes = next(
            (step, same) for step, same in zip(steps, zip(*found, strict=True), strict=True) if _any_bad(same)
        )
        wrong = [("loss", loss, cases) for loss, _, cases in of_processes if not math.isfinite(loss)]
        wrong = wrong or [
            ("norm of the weights", norm, cases) for _, norm, cases in of_processes if not math.isfinite(norm)
        ]
        what, value, _ = wrong[0]
        cases = ", ".join(case for *_, cases in wrong for case in cases)
        raise InputError(
            f"the {what} became {'NaN' if math.isnan(value) else 'infinite'} in epoch {first.epoch}, "
            f"step {first.number} of {engine.state.epoch_length}, on {cases or 'its volumes'}; the training stops, and "
            "what was saved before stays: lower --learning_rate, give --precision fp32, or inspect these volumes"
        )


def _any_bad(same_step: Sequence[tuple[float, float, Any]]) -> bool:
    return not all(math.isfinite(number) for loss, norm, _ in same_step for number in (loss, norm))


def _everywhere(flag: Tensor) -> bool:
    """Return whether ``flag`` is true in all processes."""
    if torch.distributed.is_initialized():
        flag = flag.int()
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
    return bool(flag)


def _from_all(value: Any) -> list[Any]:
    """Return ``value`` of each process."""
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


class ClipGradients:
    """Handler that scales the gradients of a step down to a norm, before the optimizer makes it.

    A step of a few outlying slices then moves the weights no further than any other. Attach it once; it works with any
    trainer, since the optimizer itself calls it.

    Args:
        optimizer: of the training.
        max_norm: of all gradients together (L2); None leaves them alone.

    Raises:
        InputError: ``max_norm`` is not above 0.
    """

    def __init__(self, optimizer: Optimizer, max_norm: float | None) -> None:
        if max_norm is not None and not float(max_norm) > 0:
            raise InputError(f"--gradient_clip is {max_norm!r}; it must be a norm above 0, or null for none")
        self.optimizer, self.max_norm = optimizer, max_norm

    def attach(self, engine: Engine) -> None:
        """Clip before each step of the optimizer."""
        if self.max_norm is not None:
            self.optimizer.register_step_pre_hook(partial(_clip, self.max_norm))


def _clip(max_norm: float, optimizer: Optimizer, *_: Any) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    nn.utils.clip_grad_norm_(weights, max_norm)


class ProgressBar:
    """Handler that shows how far a run is, how long it will take, the loss, and the validation score.

    ignite's own counts the steps of an epoch, so that it cannot say when the run will end, and writes each step twice,
    whatever interval is asked for: 408 lines in a log file for 200 steps.

    The loss is read when the bar is drawn, and at the end of an epoch; to read it, a GPU is waited for.

    Args:
        evaluator: engine whose key metric is shown; None shows none.
        unit: what one iteration is, for the display.
    """

    def __init__(self, evaluator: Engine | None = None, unit: str = "step") -> None:
        self.evaluator, self.unit = evaluator, unit
        self.bar: tqdm[Any] | None = None
        self.drawn = -math.inf

    def attach(self, engine: Engine) -> None:
        """Open on ``STARTED``, move on ``ITERATION_COMPLETED``, close at the end or on an exception."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _open(self, engine: Engine) -> None:
        # A log file gets a line every half minute, a terminal a moving bar.
        interval = 0.2 if sys.stderr.isatty() else 30
        self.bar = tqdm(total=_steps_of(engine), initial=engine.state.iteration, unit=self.unit, mininterval=interval)
        self.drawn = -math.inf

    def _move(self, engine: Engine) -> None:
        if self.bar is None:
            return
        now = time.monotonic()
        if now - self.drawn >= self.bar.mininterval or engine.state.iteration % engine.state.epoch_length == 0:
            self.drawn = now
            self.bar.total = _steps_of(engine)  # by the clock it is an estimate, which changes
            self._describe(engine, self.bar)
        self.bar.update()

    def _describe(self, engine: Engine, bar: "tqdm[Any]") -> None:
        shown = {}
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            shown["loss"] = f"{output['loss'].item():.3f}"
        if self.evaluator is not None and self.evaluator.state.metrics:
            name = self.evaluator.state.key_metric_name
            shown[name] = f"{float(self.evaluator.state.metrics[name]):.3f}"
        bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)
        bar.set_postfix(shown, refresh=False)

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.total = _steps_of(engine)
            self.bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close(engine)
        raise error


def _steps_of(engine: Engine) -> int | None:
    """Return how many steps a run will have made; None where that is not known yet."""
    steps = getattr(engine.state, "max_steps", None) or engine.state.epoch_length * engine.state.max_epochs
    return int(steps) if math.isfinite(steps) else None


def loss_and_rate(output: dict[str, Any], optimizer: Optimizer) -> dict[str, float]:
    """Pick what TensorBoard shows of each step of a training: the loss and the learning rate."""
    return {"train_loss": output["loss"].item(), "lr": optimizer.param_groups[0]["lr"]}


def _label_map(labels: Tensor) -> Tensor:
    """Turn one-hot labels (classes, X, Y, Z) into (1, X, Y, Z); a label map stays as it is."""
    return labels.argmax(dim=0, keepdim=True) if labels.shape[0] > 1 else labels


def _shown_slice(volume: Tensor, label: Tensor) -> Tensor:
    """Return (1, 1, Y, X): of ``volume`` (C, X, Y, Z) the slice that shows the most labels, upright."""
    richest = int((_label_map(label) > 0).flatten(0, 2).sum(0).argmax())
    return volume[None, :1, ..., richest].transpose(2, 3).float()


def shown_image_and_label(batch: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Pick the image and the label that TensorBoard shows from a validated batch, (1, 1, Y, X) each."""
    label = batch[0]["label"]
    return _shown_slice(batch[0]["image"], label), _shown_slice(_label_map(label), label)


def shown_prediction(output: list[dict[str, Any]]) -> Tensor:
    """Pick the prediction that TensorBoard shows beside them, (1, 1, Y, X)."""
    return _shown_slice(_label_map(output[0]["pred"]), output[0]["label"])
