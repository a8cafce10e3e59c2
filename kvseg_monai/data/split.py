"""Rule by which patients are dealt to the lists of a datalist: a patient is in one list only, whatever the seed."""

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """Order in which a split is drawn.

    Args:
        order: the patients, sorted, and a seed -> the order in which they are dealt.
        share: a number of patients and a fraction -> how many of them that is.
    """

    order: Callable[[list[str], int], list[str]]
    share: Callable[[int, float], int]


def _by_hash(patients: list[str], seed: int) -> list[str]:
    """Order by a hash of the name: where two patients come does not depend on who else is there."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())


def _shuffled(patients: list[str], seed: int) -> list[str]:
    shuffled = list(patients)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def _nearest_or_none(count: int, fraction: float) -> int:
    """Return the whole number nearest to the share, halves up, at least one unless the fraction is 0."""
    return max(1, math.floor(count * fraction + 0.5)) if fraction > 0 else 0


def _nearest(count: int, fraction: float) -> int:
    return max(1, round(count * fraction))


# Two, since who was validated or tested on must not change under those who have datasets or weights of an earlier
# version: a prepared dataset, which is written once and grows, and what a training without a validation list holds out.
PREPARED = Draw(_by_hash, _nearest_or_none)
HELD_OUT = Draw(_shuffled, _nearest)


def split_patients(
    patients: Iterable[str], fractions: Mapping[str, float], *, seed: int = 0, draw: Draw = PREPARED
) -> dict[str, str]:
    """Return the section of each patient; the same patients and seed give the same split on every machine.

    A section gets its share of the patients as soon as they can be spared: the first from two patients on, the second
    from three on, and so on. Training always keeps at least one.

    Args:
        patients: their names, in any order.
        fractions: share of the patients in each section, as validation and test; the rest is for training.
        seed: another seed gives another split.
        draw: :data:`PREPARED` or :data:`HELD_OUT`.
    """
    ordered = draw.order(sorted(set(patients)), seed)
    counts: dict[str, int] = {}
    for place, (section, fraction) in enumerate(fractions.items()):
        to_spare = len(ordered) - 1 - sum(counts.values()) if len(ordered) >= place + 2 else 0
        counts[section] = min(draw.share(len(ordered), fraction), to_spare)
    sections = [section for section in reversed(counts) for _ in range(counts[section])]
    return dict(zip(ordered, sections + ["training"] * (len(ordered) - len(sections)), strict=True))
