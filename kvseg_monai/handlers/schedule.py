"""The learning rate of a training: it rises for some steps, then falls to 0 at the last."""

import logging
import math
from typing import Any

from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.clock import TrainingClock
from kvseg_monai.utils.flags import as_count

logger = logging.getLogger(__name__)

SCHEDULES = ("cosine", "poly")
POWER = 0.9  # as nnU-Net has it
FIRST = 0.01  # of the peak, at the first step
LATEST = 0.5  # share of the time at which the rate falls, although the steps of the warm-up are not made


class WarmupSchedule(WarmupCosineSchedule):
    """MONAI's ``WarmupCosineSchedule``, which can also fall as a polynomial, (1 - t) to the power 0.9, or by the clock.

    By the clock the share of the time for steps that is used takes the place of the share of the steps. A number of
    steps of warm-up stays one, unless half of the time is up before: then the rate falls from where it is.

    Args:
        optimizer: whose learning rate is the peak.
        steps: of the whole training.
        warmup_steps: in which the rate rises; half of all steps at most.
        warmup: share of all steps in which it rises, instead of their number.
        schedule: how it falls, one of :data:`SCHEDULES`.
        clock: of a training that has so many minutes, in which ``steps`` does not count; None, or one without a limit.

    Raises:
        InputError: there is no such schedule, or ``warmup`` or ``warmup_steps`` is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        *,
        warmup_steps: Any = 100,
        warmup: float | None = None,
        schedule: str = "cosine",
        clock: TrainingClock | None = None,
    ) -> None:
        if schedule not in SCHEDULES:
            raise InputError(f"--schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        if warmup is not None and not 0 <= warmup <= 1:
            raise InputError(f"--warmup is {warmup}; it must be a share of the steps, from 0 to 1")
        given = as_count(warmup_steps, "warmup_steps") or 0
        count = max(1, min(given, steps // 2) if warmup is None else int(warmup * steps))
        self.falls = schedule
        self.clock = clock if clock is not None and clock.limit is not None else None
        self.rises = (0.0, given) if warmup is None else (warmup, 0)
        self.turn: tuple[float, float] | None = None  # by the clock: when the rate began to fall, and from where
        super().__init__(optimizer, warmup_steps=count, t_total=steps, warmup_multiplier=FIRST)

    def lr_lambda(self, step: int) -> float:
        """Return the share of the peak at a step."""
        if self.clock is not None:
            return self._by_the_clock(step, self.clock.progress(step))
        if self.falls == "cosine" or step < self.warmup_steps:
            return float(super().lr_lambda(step))
        left = (self.t_total - step) / max(1, self.t_total - self.warmup_steps)
        return float(max(0.0, left) ** POWER)

    def _by_the_clock(self, step: int, share: float) -> float:
        """Return the share of the peak when a share of the time is used."""
        warmup, given = self.rises
        risen = step / given if given else share / max(warmup, 1e-9) if step else 0.0
        height = FIRST + (1 - FIRST) * min(1.0, risen)
        if self.turn is None:
            if risen < 1 and share < LATEST:
                return height
            self.turn = share, height
            if risen < 1:
                logger.warning(
                    "half of --max_minutes is up after %d of %s steps of warm-up: the learning rate falls from %.0f %% "
                    "of its peak; give more time, or a smaller --warmup_steps",
                    *(step, given, 100 * height),
                )
        start, height = self.turn
        gone = min(1.0, max(0.0, share - start) / max(1 - start, 1e-9))
        fall = 0.5 * (1 + math.cos(math.pi * gone)) if self.falls == "cosine" else (1 - gone) ** POWER
        return height * fall

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the schedule; the clock has its own."""
        return {name: value for name, value in super().state_dict().items() if name != "clock"}
