"""Training counted in steps of the optimizer: how many there are, and an end after so many."""

import math
from collections.abc import Sized
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.clock import TrainingClock, as_minutes
from kvseg_monai.utils.flags import as_count


def total_steps(
    loader: Sized,
    *,
    max_epochs: int,
    rounds: int = 1,
    max_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> int:
    """Return how many steps a training makes, over all its rounds: what the learning rate's schedule spans.

    Args:
        loader: of the training's batches.
        max_epochs: epochs of a round; not regarded where ``max_steps`` is given.
        rounds: of federated training.
        max_steps: steps of the whole training.
        steps_per_epoch: None for as many as ``loader`` has batches.

    Raises:
        InputError: a number of steps is no whole number from 1 on.
    """
    length = as_count(steps_per_epoch, "steps_per_epoch") or len(loader)
    return as_count(max_steps, "max_steps") or rounds * max_epochs * length


def check_steps(
    *, max_steps: Any = None, steps_per_epoch: Any = None, max_minutes: Any = None, rounds: int = 1
) -> None:
    """Check how long a training shall be, before any data are read; the bundles' ``initialize`` calls it.

    Raises:
        InputError: a number of steps is no whole number from 1 on, nor None; ``max_minutes`` is no number above 0, nor
            None, or stands beside ``max_steps`` or several ``rounds``.
    """
    as_count(max_steps, "max_steps")
    as_count(steps_per_epoch, "steps_per_epoch")
    if as_minutes(max_minutes) is None:
        return
    if max_steps is not None:
        raise InputError(
            f"--max_minutes is {max_minutes} and --max_steps is {max_steps}; one of them alone says when a training "
            "ends: leave the other out"
        )
    if rounds > 1:
        raise InputError(
            f"--max_minutes is {max_minutes} and --rounds is {rounds}; the rounds of federated training cannot share a "
            "time: give --max_epochs or --max_steps instead"
        )


class StopAfterSteps:
    """Handler that ends a training after exactly so many steps, whatever a batch and an epoch are made of.

    ignite's ``max_iters`` would leave the last epoch without its end. Here an epoch in which the steps run out is
    shorter, and is validated and saved like any other. Attach it after the handler that restores an interrupted run.

    Args:
        max_steps: which also sets the trainer's number of epochs; None does nothing.

    Raises:
        InputError: it is no whole number from 1 on; on ``STARTED``, where so many steps were made before, as in an
            earlier round of federated training.
    """

    def __init__(self, max_steps: int | None) -> None:
        self.max_steps = as_count(max_steps, "max_steps")

    def attach(self, engine: Engine) -> None:
        """Set the number of epochs; end the epoch on ``ITERATION_COMPLETED``, and the run on ``EPOCH_COMPLETED``."""
        if self.max_steps is None:
            return
        engine.state.max_steps = self.max_steps
        if engine.state.epoch_length:  # none without a case, which has an error of its own
            engine.state.max_epochs = math.ceil(self.max_steps / engine.state.epoch_length)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_run)

    def _start(self, engine: Engine) -> None:
        if engine.state.iteration >= self.max_steps:
            raise InputError(
                f"{engine.state.iteration} steps are made already and --max_steps is {self.max_steps}; raise "
                "--max_steps, which counts those of all rounds, to train on"
            )

    def _end_epoch(self, engine: Engine) -> None:
        if engine.state.iteration == self.max_steps and self.max_steps % engine.state.epoch_length:
            engine.terminate_epoch()

    def _end_run(self, engine: Engine) -> None:
        if engine.state.iteration >= self.max_steps:
            engine.terminate()


class ValidateEpochs(ValidationHandler):
    """MONAI's ``ValidationHandler`` for every so many epochs, and for the last one in any case.

    However the number of epochs and the interval fit, the weights at the end of a training are validated, and may be
    the best.

    Args:
        validator: that is run with the number of the epoch.
        interval: epochs from one validation to the next, from 1 on.
        exec_at_start: also validate the weights that the training starts from.
        clock: of a training that has so many minutes: an epoch whose validation would leave no time for steps and the
            last one is not validated; None, or one without a limit, has no say.

    Raises:
        InputError: ``interval`` is no whole number from 1 on.
    """

    def __init__(
        self,
        validator: Evaluator,
        interval: Any = 1,
        *,
        exec_at_start: bool = False,
        clock: TrainingClock | None = None,
    ) -> None:
        super().__init__(as_count(interval, "val_interval") or 1, validator, exec_at_start=exec_at_start)
        self.clock = clock if clock is not None and clock.limit is not None else None

    def attach(self, engine: Engine) -> None:
        """Validate on ``EPOCH_COMPLETED``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate)
        if self.exec_at_start:
            engine.add_event_handler(Events.STARTED, self)

    def _validate(self, engine: Engine) -> None:
        roomy = self.clock is None or self.clock.roomy
        if is_at_end(engine) or (engine.state.epoch % self.interval == 0 and roomy):
            self(engine)


def limit_of(engine: Engine) -> str:
    """Return what the length of a training is given in: "steps" or "epochs"."""
    return "epochs" if getattr(engine.state, "max_steps", None) is None else "steps"


def is_at_end(engine: Engine) -> bool:
    """Return whether a trainer has made all its steps or epochs."""
    state = engine.state
    return state.iteration >= state.max_steps if limit_of(engine) == "steps" else state.epoch >= state.max_epochs


def set_progress(engine: Engine, epoch: int, iteration: int) -> None:
    """Let a trainer that is not running go on after an epoch and a step.

    An epoch that ended early, by :class:`StopAfterSteps`, is gone on with.
    """
    length = engine.state.epoch_length
    ended_early = length and (epoch - 1) * length < iteration < epoch * length
    engine.state.epoch, engine.state.iteration = epoch - bool(ended_early), iteration
