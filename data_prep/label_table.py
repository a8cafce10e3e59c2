"""The table that says what the values of a mask mean: ``--labels "0=background,1=large_bowel,255=stomach"``.

Classes are numbered in the order in which the table names them, ``background`` always 0. Several values may mean one
class. A value that the table lacks is refused, never taken for background.
"""

from dataclasses import dataclass

import numpy as np

from kvseg_monai.errors import InputError

BACKGROUND = "background"
MOST_VALUES = 1 << 16  # between the smallest and the largest value of a mask that is no picture
EXAMPLE = '"0=background,1=large_bowel,2=small_bowel,3=stomach"'


@dataclass(frozen=True)
class LabelTable:
    """What keys mean: a mask's values as text, or the names of segments.

    Args:
        values: label value of each key.
        names: class name of each label value, from 0 on.
    """

    values: dict[str, int]
    names: dict[int, str]

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
    wrong = [key for key in table.values if not key.lstrip("-").isdecimal()]
    if wrong:
        raise InputError(f"--labels has the value '{wrong[0][:60]}'; it must be a whole number, as in {EXAMPLE}")
    if 0 not in table.values.values():
        raise InputError(f"--labels does not say which value is {BACKGROUND}; name it, as in {EXAMPLE}")
    return LabelTable({str(int(key)): value for key, value in table.values.items()}, table.names)


def apply_table(mask: np.ndarray, table: LabelTable, *, file: object) -> np.ndarray:
    """Return uint8 label values of a mask of any numeric type; ``file`` is named in errors.

    Raises:
        InputError: when the mask holds a value that the table lacks.
    """
    whole = mask if mask.dtype.kind in "iu" else mask.astype(np.int64)
    low, high = int(whole.min()), int(whole.max())
    unknown = len(table.names)
    if whole is not mask and not (whole == mask).all():
        wrong = [f"{value:g}" for value in np.unique(mask[whole != mask])[:5].tolist()]
    elif high - low > MOST_VALUES:
        wrong = [str(value) for value in (low, high) if str(value) not in table.values]
    else:  # one look-up per voxel: sorting the voxels would take far longer
        meaning = [table.values.get(str(value), unknown) for value in range(low, high + 1)]
        labels = np.array(meaning, dtype=np.uint8)[whole - low if low else whole]
        wrong = [str(value + low) for value in np.flatnonzero(np.bincount(whole[labels == unknown] - low))[:5].tolist()]
    if wrong:
        raise InputError(
            f"{file} holds the value {', '.join(wrong)}, which --labels does not name ({table.text}); "
            "add what it means, or correct the mask"
        )
    return labels


def voxels_per_class(labels: np.ndarray, names: dict[int, str]) -> dict[str, int]:
    """Number of voxels of each class but the background."""
    counts = np.bincount(labels.ravel(order="K"), minlength=len(names))
    return {name: int(counts[value]) for value, name in names.items() if value}
