"""The table that says what the values of a mask mean: ``--labels "0=background,1=large_bowel,255=stomach"``.

Classes are numbered in the order in which the table names them, ``background`` always 0. Several values may mean one
class. A value that the table lacks is refused, never taken for background.
"""

import re
from dataclasses import dataclass

import numpy as np

from kvseg_monai.errors import InputError

BACKGROUND = "background"
MOST_CLASSES = 254  # label maps are 8-bit; one value is kept for what no table names
SMALL_RANGE = 1 << 16  # between the smallest and the largest value of a mask: then a look-up table is small
EXAMPLE = '"0=background,1=large_bowel,2=small_bowel,3=stomach"'


@dataclass(frozen=True)
class LabelTable:
    """Table of what keys mean: a mask's values as text, or the names of segments.

    Args:
        values: label value of each key.
        names: class name of each label value, from 0 on.
    """

    values: dict[str, int]
    names: dict[int, str]

    def __post_init__(self) -> None:
        if len(self.names) - 1 > MOST_CLASSES:
            raise InputError(f"the labels are {len(self.names) - 1} classes; at most {MOST_CLASSES} fit a label map")

    @property
    def text(self) -> str:
        """The table as it is written on a command line."""
        return ",".join(f"{key}={self.names[value]}" for key, value in self.values.items())


def parse_table(text: str) -> LabelTable:
    """Read ``KEY=CLASS,KEY=CLASS``.

    Raises:
        InputError: for an item without ``=``, an empty or repeated key, and a table that names no class.
    """
    values: dict[str, int] = {}
    numbers = {BACKGROUND: 0}
    for item in text.split(","):
        key, equal, name = (part.strip() for part in item.rpartition("="))
        if not (key and equal and name):
            raise InputError(f"--labels has the item '{item[:60]}'; each must be VALUE=CLASS, as in {EXAMPLE}")
        if key in values:
            raise InputError(f"--labels has {key} twice; each value may have one class: remove one of them")
        values[key] = numbers.setdefault(name, len(numbers))
    if len(numbers) < 2:
        raise InputError(f"--labels names no class but {BACKGROUND}; write it as in {EXAMPLE}")
    return LabelTable(values, {number: name for name, number in numbers.items()})


def parse_number_table(text: str) -> LabelTable:
    """Read a table whose keys are the whole numbers of a mask.

    Raises:
        InputError: see :func:`parse_table`; also for a key that is no whole number, and a table without background.
    """
    table = parse_table(text)
    wrong = [key for key in table.values if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", key)]
    if wrong:
        raise InputError(f"--labels has the value '{wrong[0][:60]}'; it must be a whole number, as in {EXAMPLE}")
    if 0 not in table.values.values():
        raise InputError(f"--labels does not say which value is {BACKGROUND}; name it, as in {EXAMPLE}")
    return table


def apply_table(mask: np.ndarray, table: LabelTable, *, file: object) -> np.ndarray:
    """Return uint8 label values of a mask of any numeric type; ``file`` is named in errors.

    Raises:
        InputError: when the mask holds a value that the table lacks.
    """
    whole = mask
    if mask.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # what is no whole number is refused below
            whole = mask.astype(np.int64)
    unknown = len(table.names)
    if whole is not mask and not (whole == mask).all():
        wrong = [f"{value:g}" for value in np.unique(mask[whole != mask])[:5].tolist()]
    else:
        values, places = _distinct(whole)
        labels = np.array([table.values.get(str(value), unknown) for value in values], dtype=np.uint8)[places]
        wrong = [str(values[place]) for place in np.unique(places[labels == unknown])[:5].tolist()]
    if wrong:
        raise InputError(
            f"{file} holds the value {', '.join(wrong)}, which --labels does not name ({table.text}); "
            "add what it means, or correct the mask"
        )
    return labels


def _distinct(whole: np.ndarray) -> tuple[range | list[int], np.ndarray]:
    """Return values among which are all that the mask has, and the index of each voxel's value among them."""
    low, high = int(whole.min()), int(whole.max())
    if high - low > SMALL_RANGE:  # else nothing is sorted, which would take far longer
        values, places = np.unique(whole, return_inverse=True)
        return values.tolist(), places.reshape(whole.shape)
    return range(low, high + 1), whole.astype(np.int64) - low if low else whole


def voxels_per_class(labels: np.ndarray, names: dict[int, str]) -> dict[str, int]:
    """Number of voxels of each class but the background."""
    counts = np.bincount(labels.ravel(order="K"), minlength=len(names))
    return {name: int(counts[value]) for value, name in names.items() if value}
