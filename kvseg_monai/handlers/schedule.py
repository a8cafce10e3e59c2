"""The learning rate of a training: it rises for some steps, then falls to 0 at the last."""

from typing import Any

from monai.optimizers import WarmupCosineSchedule
from torch.optim import Optimizer

from kvseg_monai.errors import InputError
from kvseg_monai.utils.flags import as_count

SCHEDULES = ("cosine", "poly")
POWER = 0.9  # as nnU-Net has it
FIRST = 0.01  # of the peak, at the first step


class WarmupSchedule(WarmupCosineSchedule):
    """MONAI's ``WarmupCosineSchedule``, which can also fall as a polynomial, (1 - t) to the power 0.9.

    Args:
        optimizer: whose learning rate is the peak.
        steps: of the whole training.
        warmup_steps: in which the rate rises; half of all steps at most.
        warmup: share of all steps in which it rises, instead of their number.
        schedule: how it falls, one of :data:`SCHEDULES`.

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
    ) -> None:
        if schedule not in SCHEDULES:
            raise InputError(f"--schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        if warmup is not None and not 0 <= warmup <= 1:
            raise InputError(f"--warmup is {warmup}; it must be a share of the steps, from 0 to 1")
        given = as_count(warmup_steps, "warmup_steps") or 0
        count = max(1, min(given, steps // 2) if warmup is None else int(warmup * steps))
        self.falls = schedule
        super().__init__(optimizer, warmup_steps=count, t_total=steps, warmup_multiplier=FIRST)

    def lr_lambda(self, step: int) -> float:
        """Return the share of the peak at a step."""
        if self.falls == "cosine" or step < self.warmup_steps:
            return float(super().lr_lambda(step))
        left = (self.t_total - step) / max(1, self.t_total - self.warmup_steps)
        return float(max(0.0, left) ** POWER)
