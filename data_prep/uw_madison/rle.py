"""Run-length masks as in the UW-Madison ``train.csv``: ``"start length start length ..."``.

Starts are 1-based and count pixels row by row over (height, width). An empty text is an empty mask.
"""

import re

import numpy as np

from kvseg_monai.errors import InputError

# At most 15 digits: no image has more pixels, and the sum of two such numbers still fits int64.
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


def parse_runs(text: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Read and check the runs of ``text`` for an image of ``pixels`` pixels.

    Returns:
        Zero-based starts and exclusive ends, int64, ascending, both of shape (runs,).

    Raises:
        InputError: for anything but whole numbers in pairs, and for runs that are empty, leave the image, overlap or
            are out of order. Nothing is repaired: a mask that had to be guessed is worse than none.
    """
    words = text.split()
    wrong = next((word for word in words if not _WHOLE_NUMBER.fullmatch(word)), None)
    if wrong is not None:
        raise InputError(f"the run-length text holds '{wrong[:20]}'; only whole numbers of pixels are allowed")
    if len(words) % 2:
        raise InputError(f"the run-length text holds {len(words)} numbers; it must hold pairs of start and length")
    numbers = np.array([int(word) for word in words], dtype=np.int64).reshape(-1, 2)  # (runs, 2)
    starts, ends = numbers[:, 0] - 1, numbers[:, 0] - 1 + numbers[:, 1]
    bad = np.flatnonzero((starts < 0) | (ends <= starts) | (ends > pixels))
    if bad.size:
        first, length = numbers[bad[0]]
        raise InputError(
            f"the run '{first} {length}' does not fit the image; starts count from 1, lengths are at least 1, "
            f"and the image ends at pixel {pixels}"
        )
    clash = np.flatnonzero(starts[1:] < ends[:-1])
    if clash.size:
        (one, one_length), (two, two_length) = numbers[clash[0]], numbers[clash[0] + 1]
        raise InputError(
            f"the runs '{one} {one_length}' and '{two} {two_length}' overlap or are out of order; "
            "runs must ascend without overlap"
        )
    return starts, ends


def decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Draw the mask that ``text`` describes.

    Args:
        text: the runs, see :func:`parse_runs`, which also says what raises.
        shape: (height, width) of the image.

    Returns:
        Boolean mask of shape (height, width).
    """
    pixels = shape[0] * shape[1]
    starts, ends = parse_runs(text, pixels)
    # +1 where a run opens, -1 behind its last pixel: the running sum is the mask. A run that ends where the next one
    # starts meets it in the same cell, so the two are added, not assigned.
    steps = np.zeros(pixels + 1, dtype=np.int8)
    steps[starts] += 1
    steps[ends] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(shape)


def encode(mask: np.ndarray) -> str:
    """Describe a (height, width) mask as runs; every non-zero pixel belongs to it. The inverse of :func:`decode`."""
    if mask.ndim != 2:
        raise InputError(f"a mask to encode has {mask.ndim} axes; it must be one slice of shape (height, width)")
    steps = np.diff(np.concatenate([[0], (mask != 0).ravel().astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))
