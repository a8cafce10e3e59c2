"""Handlers of a training: a seed per epoch, a stop at NaN, a progress bar; and what TensorBoard shows."""

import math
import sys
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


class StopOnNan:
    """Handler that ends a training whose loss or weights have become NaN or infinite, with step and cases.

    ignite's ``TerminateOnNan`` ends the run as if it were done. Attach this one before those that save, so that what
    was saved before stays. Under mixed precision a step whose gradients alone are infinite is left out by the scaler
    and is no reason to stop. Of several processes all stop, in the same step.

    Args:
        network: that is trained.

    Raises:
        InputError: saying what was not finite, in which epoch and step, and with which volumes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]

    def attach(self, engine: Engine) -> None:
        """Check on ``ITERATION_COMPLETED``, when the optimizer has made its step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        loss = engine.state.output["loss"].detach().float()
        norm = nn.utils.get_total_norm([weight.detach() for weight in self.weights])  # not finite if one of them is not
        numbers = torch.stack((loss, norm.to(loss)))
        if _everywhere(numbers.isfinite().all()):
            return
        found = _from_all((*numbers.tolist(), list(dict.fromkeys(engine.state.batch.get(CASE, [])))))
        wrong = [("loss", loss, cases) for loss, _, cases in found if not math.isfinite(loss)]
        wrong = wrong or [("norm of the weights", norm, cases) for _, norm, cases in found if not math.isfinite(norm)]
        what, value, _ = wrong[0]
        step = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        cases = ", ".join(case for *_, cases in wrong for case in cases)
        raise InputError(
            f"the {what} became {'NaN' if math.isnan(value) else 'infinite'} in epoch {engine.state.epoch}, "
            f"step {step} of {engine.state.epoch_length}, on {cases or 'its volumes'}; the training stops, and what "
            "was saved before stays: lower --learning_rate, give --precision fp32, or inspect these volumes"
        )


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


class ProgressBar:
    """Handler that shows how far a run is, how long it will take, the loss, and the validation score.

    ignite's own counts the steps of an epoch, so that it cannot say when the run will end, and writes each step twice,
    whatever interval is asked for: 408 lines in a log file for 200 steps.

    Args:
        evaluator: engine whose key metric is shown; None shows none.
        unit: what one iteration is, for the display.
    """

    def __init__(self, evaluator: Engine | None = None, unit: str = "step") -> None:
        self.evaluator, self.unit = evaluator, unit
        self.bar: tqdm[Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Open on ``STARTED``, move on ``ITERATION_COMPLETED``, close at the end or on an exception."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _open(self, engine: Engine) -> None:
        total = getattr(engine.state, "max_steps", None) or engine.state.epoch_length * engine.state.max_epochs
        # A log file gets a line every half minute, a terminal a moving bar.
        interval = 0.2 if sys.stderr.isatty() else 30
        self.bar = tqdm(total=total, initial=engine.state.iteration, unit=self.unit, mininterval=interval)

    def _move(self, engine: Engine) -> None:
        if self.bar is None:
            return
        shown = {}
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            shown["loss"] = f"{output['loss'].item():.3f}"
        if self.evaluator is not None and self.evaluator.state.metrics:
            name = self.evaluator.state.key_metric_name
            shown[name] = f"{float(self.evaluator.state.metrics[name]):.3f}"
        self.bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close(engine)
        raise error


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
