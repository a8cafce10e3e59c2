"""Values of DICOM elements as numbers and texts, refused where they make no sense."""

import math
from collections.abc import Mapping
from typing import Any

from kvseg_monai.errors import InputError

LARGEST = 1e6  # of a number in a header, in mm: no patient is a kilometre away


def listed(value: Any) -> list[Any]:
    """Return the values of an element, which may hold none, one or many."""
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def numbers_of(facts: Mapping[str, Any], keyword: str, length: int) -> tuple[float, ...]:
    """Return the ``length`` numbers of an element.

    Raises:
        InputError: when there are more or fewer, or one is not finite or absurd.
    """
    numbers = tuple(float(number) for number in listed(facts.get(keyword)))
    if len(numbers) != length or not all(abs(number) <= LARGEST for number in numbers):  # False for NaN, too
        raise InputError(
            f"{keyword} holds {len(numbers)} numbers, or one beyond {LARGEST:g}; an MR image needs {length}: "
            "export the series again from its source"
        )
    return numbers


def positive_of(facts: Mapping[str, Any], keyword: str, length: int) -> tuple[float, ...]:
    """Return :func:`numbers_of` that are all above 0, or raise :class:`InputError`."""
    numbers = numbers_of(facts, keyword, length)
    if min(numbers) <= 0:
        raise InputError(f"{keyword} is {numbers}; it must be above 0 mm: export the series again from its source")
    return numbers


def rescale_of(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Return slope and intercept, 1 and 0 where there are none, or raise :class:`InputError` if they leave no image."""
    slope, intercept = facts.get("RescaleSlope"), facts.get("RescaleIntercept")
    rescale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    if not all(map(math.isfinite, rescale)) or rescale[0] == 0:
        raise InputError(
            f"RescaleSlope and RescaleIntercept are {rescale[0]:g} and {rescale[1]:g}, which leaves no image; "
            "export the series again from its source"
        )
    return rescale


def count_of(facts: Mapping[str, Any], keyword: str, *, default: int = 0) -> int:
    """Return a whole number of at least 1, or raise :class:`InputError`."""
    count = int(facts.get(keyword) or default)
    if count < 1:
        raise InputError(f"{keyword} is {count}; it must be at least 1: export the series again from its source")
    return count


def uid_of(facts: Mapping[str, Any], keyword: str) -> str:
    """Return a UID, or raise :class:`InputError` where it is missing."""
    uid = str(facts.get(keyword) or "")
    if not uid:
        raise InputError(f"has no {keyword}, which every DICOM object needs; export the series again from its source")
    return uid


def number_of(value: Any) -> float | None:
    """Return a value as a number, None where it is none."""
    try:
        return float(str(value))
    except ValueError:
        return None
