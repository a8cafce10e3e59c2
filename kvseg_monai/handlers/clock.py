"""The clock of a training that has so many minutes: how much of the time is used, and how many steps are left."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from kvseg_monai.errors import InputError
from kvseg_monai.utils.process_age import age_of_command

ROOM = 2  # validations, beside the last one, that there must be time for where one is made: some take longer
SPARE = 2  # steps, likewise
RECENT, LAST = 32, 3  # steps, and validations, whose mean is taken for that of those to come
TOGETHER = 32  # steps on a GPU between two readings of the clock, each of which waits for it


def as_minutes(value: Any) -> float | None:
    """Return a time in minutes, None for None.

    Raises:
        InputError: it is no number above 0.
    """
    if value is None:
        return None
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf:
        return float(value)
    raise InputError(f"--max_minutes is {value!r}; it must be a number of minutes above 0, or null")


class TrainingClock:
    """Clock of a training that has so many minutes: imports, reading and checking the data count.

    Where a command was started for the training, as ``python -m monai.bundle run`` is, the time begins with it; else,
    as in a server, when the clock is made.

    It keeps time for the last validation and what is saved after it, and for those before, as long as the last ones
    took. The rest goes to steps, as many as fit if each takes what the last ones did. Of that time ``progress`` is the
    share that is used, which the learning rate falls with; so it falls to 0 whether the steps become slower or faster.

    Of several processes the first one's clock counts, so that all stop in the same step and at the same rate.

    Args:
        max_minutes: for everything; None for no limit, in which case nothing is done.
        val_interval: epochs from one validation to the next.
        device: before it is read, a GPU is waited for, so there that is done once in :data:`TOGETHER` steps.
        now: seconds of a clock that only goes forward.

    Raises:
        InputError: ``max_minutes`` is no number above 0.
    """

    def __init__(
        self,
        max_minutes: float | None,
        *,
        val_interval: int = 1,
        device: torch.device | str = "cpu",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        minutes = as_minutes(max_minutes)
        self.limit = None if minutes is None else 60 * minutes
        self.val_interval, self.now = val_interval, now
        self.interval = TOGETHER if torch.device(device).type == "cuda" else 1
        self.mark = now()
        self.start = self.mark - age_of_command()
        self.stepping = 0.0  # seconds of all steps
        self.endings: deque[float] = deque(maxlen=LAST)  # seconds of a validation and what is saved after it
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.made = 0  # steps in this process
        self.read_at, self.share, self.left, self.roomy = 0, 0.0, math.inf, True

    @property
    def used(self) -> float:
        """Seconds that are used, those of an interrupted run included."""
        return self.now() - self.start

    @property
    def ending(self) -> float:
        """Seconds that a validation will take, and what is saved after it; 0 before one is measured."""
        return sum(self.endings) / max(1, len(self.endings))

    @property
    def steps(self) -> float:
        """Number of steps that the training will have made, as far as is known; infinite before the first."""
        return self.read_at + max(0, round(self.left)) if math.isfinite(self.left) else math.inf

    def progress(self, step: int) -> float:
        """Return the share of the time for steps that is used, 0 to 1, when so many steps are made."""
        ahead = max(0, step - self.read_at) / max(self.left, 1e-9)
        return self.share + (1 - self.share) * min(1.0, ahead)

    def attach(self, engine: Engine) -> None:
        """Read the clock on ``MODEL_COMPLETED``: the optimizer has made its step, the rate is not asked for yet."""
        if self.limit is None:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._note)

    def _begin_epoch(self, engine: Engine) -> None:
        self.mark = self.now()
        self.read(engine)

    def _note(self, engine: Engine) -> None:
        took, self.mark = self.now() - self.mark, self.now()
        self.made += 1
        if self.made == 2:  # the first step of a process makes ready what the others find, and counts as another
            self.recent.clear()
            self.stepping += took
        self.stepping += took if self.made > 1 else 0.0
        self.recent.append(took)
        if self.made % self.interval == 0 or (self.made < self.interval and self.made.bit_count() == 1):
            self.read(engine)

    def read(self, engine: Engine) -> None:
        """Read the clock: how many steps are ``left``, and whether it is ``roomy``: for one validation more."""
        assert self.limit is not None
        if self.recent:
            step = max(sum(self.recent) / len(self.recent), 1e-9)
            free, state = self.limit - self.used - self.ending, engine.state
            due = math.ceil(state.epoch / self.val_interval) * self.val_interval * state.epoch_length
            left = steps_left(
                free,
                step=step,
                ending=self.ending,
                due=due - state.iteration,
                every=self.val_interval * state.epoch_length,
            )
            share = self.stepping / max(self.stepping + left * step, 1e-9)
            roomy = free > ROOM * self.ending + SPARE * step
            self.share, self.left, self.roomy = _of_first_process((share, left, roomy))
            self.read_at = state.iteration

    def state_dict(self) -> dict[str, float]:
        """Return the seconds that are used, in all and for steps; without a limit nothing."""
        return {} if self.limit is None else {"used": self.used, "stepping": self.stepping}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Count the seconds of an interrupted run; those of this process go on."""
        self.start -= state.get("used", 0.0)
        self.stepping = state.get("stepping", 0.0)


def steps_left(free: float, *, step: float, ending: float, due: int, every: int) -> float:
    """Return how many steps fit into a time, beside the validations in it.

    Args:
        free: seconds, without the last validation.
        step: seconds of a step, above 0.
        ending: seconds of a validation, which is left out where :data:`ROOM` and :data:`SPARE` say so.
        due: steps until the next one.
        every: steps from one to the next.
    """
    made = 0.0
    while free > due * step:
        free, made = free - due * step, made + due
        spare = free - ROOM * ending - SPARE * step
        if spare > 0:
            cycles = spare // (every * step + ending)  # for sure
            free, made = free - ending - cycles * (every * step + ending), made + cycles * every
        due = every
    return made + max(0.0, free) / step


def _of_first_process(values: tuple[float, float, bool]) -> tuple[float, float, bool]:
    if not torch.distributed.is_initialized():
        return values
    shared = [values]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]
