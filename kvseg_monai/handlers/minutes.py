"""Training by the clock: an end when the time is up."""

import logging
import math

from ignite.engine import Engine, Events

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.clock import TrainingClock
from kvseg_monai.handlers.steps import is_at_end

logger = logging.getLogger(__name__)

SAMPLE = 8  # volumes
LATE = 1.05  # of the time: beyond it a training says that it took longer


class StopAfterMinutes:
    """Handler that ends a training when its time is up; the epoch ends early, and is validated and saved.

    One step is made in any case. How long a validation takes is measured before the first step, on :data:`SAMPLE`
    volumes, unless there was one: of a model that was there, or of the weights that the training starts from. Attach
    it after the handlers that validate, save, and restore an interrupted run.

    Args:
        clock: of the training, which is attached as well; without a limit nothing is done.
        evaluator: that validates, MONAI's.

    Raises:
        InputError: on ``STARTED``, where the time of an interrupted run is up already.
    """

    def __init__(self, clock: TrainingClock, evaluator: Engine) -> None:
        self.clock, self.evaluator = clock, evaluator
        self.validations, self.began, self.fetching = 0, 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        """Count steps on ``ITERATION_COMPLETED``; end the run on ``EPOCH_COMPLETED``."""
        if self.clock.limit is None:
            return
        self.clock.attach(engine)
        engine.state.max_minutes, engine.state.max_steps = self.clock.limit / 60, math.inf
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_run)
        self.evaluator.add_event_handler(Events.STARTED, self._begin_validation)
        self.evaluator.add_event_handler(Events.GET_BATCH_STARTED, self._fetch, -1)
        self.evaluator.add_event_handler(Events.GET_BATCH_COMPLETED, self._fetch, 1)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._end_validation)

    def _begin_validation(self) -> None:
        self.began, self.fetching = self.clock.now(), 0.0

    def _fetch(self, sign: int) -> None:
        self.fetching += sign * self.clock.now()

    def _end_validation(self) -> None:
        """Keep how long it took; the first one also prepares the volumes, which those to come find prepared."""
        self.fetching = self.fetching if self.validations == 0 else 0.0
        self.validations += 1
        self.clock.endings.append(self.clock.now() - self.began - self.fetching)

    def _measure(self) -> None:
        """Validate some volumes, with whatever weights."""
        count = min(SAMPLE, self.evaluator.state.epoch_length)
        with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=count), self.evaluator.terminate):
            self.evaluator.run(0)  # epoch 0, which is none of the run's, and does not end
        took = self.clock.now() - self.began - self.fetching
        self.clock.endings.append(took * self.evaluator.state.epoch_length / count)

    def _start(self, engine: Engine) -> None:
        assert self.clock.limit is not None
        if engine.state.iteration and self.clock.used >= self.clock.limit:
            raise InputError(
                f"{self.clock.used / 60:.1f} minutes are used already and --max_minutes is "
                f"{engine.state.max_minutes:g}; raise --max_minutes, which counts those of an interrupted run, to "
                "train on, or leave --resume out to start anew"
            )
        if not self.validations and self.evaluator.state.epoch_length:
            self._measure()
        if self.clock.used > self.clock.limit / 2:
            logger.warning(
                "of --max_minutes %g, %.1f are used before the first step, to read, check and prepare the data",
                *(engine.state.max_minutes, self.clock.used / 60),
            )
        self._go_on(engine)

    def _go_on(self, engine: Engine) -> None:
        """Say how long the training will be, as far as is known: beyond this epoch, until its end is there."""
        engine.state.max_steps = self.clock.steps
        length, known = engine.state.epoch_length, math.isfinite(self.clock.steps)
        ends = math.ceil(self.clock.steps / length) if known and length else 0
        engine.state.max_epochs = max(ends, engine.state.epoch + 1)

    def _end_epoch(self, engine: Engine) -> None:
        self._go_on(engine)
        if is_at_end(engine):
            engine.state.max_epochs = engine.state.epoch
            if engine.state.iteration % engine.state.epoch_length:
                engine.terminate_epoch()

    def _end_run(self, engine: Engine) -> None:
        assert self.clock.limit is not None
        if self.evaluator.state.epoch == engine.state.epoch:  # all since the last step was validating and saving
            self.clock.endings[-1] = self.clock.now() - self.clock.mark - self.fetching
        if is_at_end(engine):
            engine.terminate()
            if self.clock.used > LATE * self.clock.limit:
                logger.warning(
                    "the training took %.1f minutes, not --max_minutes %g",
                    *(self.clock.used / 60, engine.state.max_minutes),
                )
        else:
            self._go_on(engine)
