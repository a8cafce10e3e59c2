"""Checks of what a user hands to a network, each with a sentence that says what is allowed."""

from collections.abc import Iterable, Sequence

from kvseg_monai.errors import InputError


def choose(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise InputError unless ``value`` is among ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def image_size(img_size: int | Sequence[int], stride: int) -> tuple[int, int]:
    """Return (H, W) from one side or two, each a positive multiple of ``stride``."""
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(int(side) for side in img_size)
    if len(sides) != 2 or any(side <= 0 for side in sides):
        raise InputError(f"img_size is {img_size}; it must be one side or (height, width), in pixels")
    multiple_of(sides, stride, "img_size")
    return sides[0], sides[1]


def multiple_of(size: Sequence[int], stride: int, name: str = "the input") -> None:
    """Raise InputError unless both sides are multiples of ``stride``."""
    if any(side % stride for side in size):
        nearest = " x ".join(str(-(-side // stride) * stride) for side in size)
        found = " x ".join(str(side) for side in size)
        raise InputError(f"{name} is {found}; each side must be a multiple of {stride}: pad or resize it to {nearest}")
