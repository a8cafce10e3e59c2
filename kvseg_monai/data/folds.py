"""Folds of a cross-validation: the patients of training and validation, dealt so that each class is in every fold.

A patient is in one fold only. The patients of a rare class are dealt first, one by one, each to the fold that lacks
that class most: iterative stratification (Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label
data, ECML PKDD 2011), here with folds whose numbers of patients differ by one at most.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kvseg_monai.data.datalist import DATALIST, Entry, read_datalist
from kvseg_monai.data.dataset import Case, cases, labelled
from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.errors import InputError

SOURCES = ("training", "validation")  # never test
MANY = 20  # label files from which on a progress bar shows how far they are read


def deal_folds(classes: Mapping[str, Collection[int]], folds: int, *, seed: int = 0) -> dict[str, int]:
    """Return patient -> fold; the same patients, classes and seed give the same folds on every machine.

    Args:
        classes: patient -> the label values that occur in the patient's cases, background left out.
        folds: their number, K. Each gets the number of patients over K, rounded down or up.
        seed: another seed gives other folds.

    Examples:
        >>> found = deal_folds({"a": [1], "b": [1, 2], "c": [1], "d": [2]}, 2)
        >>> found["b"] != found["d"], sorted(found.values())
        (True, [0, 0, 1, 1])
    """
    draw = random.Random(seed)
    left = sorted(classes)
    draw.shuffle(left)
    most, larger = len(left) // folds, len(left) % folds
    dealt: dict[str, int] = {}
    sizes = [0] * folds
    holds: dict[int, Counter[int]] = defaultdict(Counter)  # class -> fold -> patients
    while left:
        remaining = Counter(value for patient in left for value in set(classes[patient]))
        rarest = min(remaining, key=lambda value: (remaining[value], value), default=None)
        patient = next(p for p in left if rarest is None or rarest in classes[p])
        full = most + (sum(size > most for size in sizes) < larger)
        # What is equal so far is decided by the patient's other classes, then by lot.
        fold = min(
            (number for number in range(folds) if sizes[number] < full),
            key=lambda number: (
                0 if rarest is None else holds[rarest][number],
                sum(holds[value][number] for value in classes[patient]),
                sizes[number],
                draw.random(),
            ),
        )
        dealt[patient] = fold
        sizes[fold] += 1
        for value in set(classes[patient]):
            holds[value][fold] += 1
        left.remove(patient)
    return dealt


def check_folds(folds: Any, fold: Any) -> None:
    """Refuse numbers of folds that mean nothing, before any data are read.

    Args:
        folds: how many there are; None without a cross-validation.
        fold: the one that is held out.

    Raises:
        InputError: one of the two alone, fewer than two folds, or a fold that is none of them.
    """
    if folds is None and fold is None:
        return
    if folds is None:
        raise InputError(f"--fold {fold} is given without --folds; say of how many, as --folds 5")
    if not _is_number(folds) or folds < 2:
        raise InputError(f"--folds is {folds!r}; it must be a whole number from 2 on")
    if fold is None:
        raise InputError(
            f"--folds {folds} is given without --fold, and one run is of one fold; name one of 0 to {folds - 1} as "
            f"--fold, or train and score all of them by `kvseg train BUNDLE --folds {folds}`"
        )
    if not _is_number(fold) or not 0 <= fold < folds:
        raise InputError(f"--fold is {fold!r}; with --folds {folds} it must be a whole number from 0 to {folds - 1}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def split_folds(
    dataset_dir: str | Path, folds: int, *, seed: int = 0, base_dir: str | Path | None = None
) -> dict[str, int]:
    """Return patient -> fold of a datalist's training and validation cases; which classes occur is read of the labels.

    A label file that cannot be read counts as without classes: the checks of a training name it and say why.

    Raises:
        InputError: there are fewer patients than folds, or a case has no label or its file is missing.
    """
    return _split(_entries(dataset_dir, base_dir), folds, seed, Path(dataset_dir) / DATALIST)


def cases_of_fold(
    dataset_dir: str | Path, *, folds: int, fold: int, seed: int = 0, base_dir: str | Path | None = None
) -> dict[str, list[Case]]:
    """Return the cases to train on, those of all other folds, and to validate on, those of this one.

    Args:
        dataset_dir: the folder with the datalist.
        folds: number of folds.
        fold: the one that is held out, from 0 on.
        seed: see :func:`deal_folds`.
        base_dir: the folder that the datalist's paths are relative to; None for ``dataset_dir``.

    Raises:
        InputError: as :func:`check_folds` and :func:`split_folds` do.
    """
    check_folds(folds, fold)
    found = _entries(dataset_dir, base_dir)
    dealt = _split(found, folds, seed, Path(dataset_dir) / DATALIST)
    held_out = [dealt[case["patient"]] == fold for case in found]
    return {
        "training": [case for case, out in zip(found, held_out, strict=True) if not out],
        "validation": [case for case, out in zip(found, held_out, strict=True) if out],
    }


def cases_to_score(
    dataset_dir: str | Path,
    section: str,
    *,
    holdout: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    base_dir: str | Path | None = None,
) -> list[Case]:
    """Return the cases of a section (see :func:`kvseg_monai.data.cases`), or those that a fold holds out.

    Args:
        dataset_dir: the folder with the datalist.
        section: of the datalist; not looked at where a fold is given.
        holdout: share of the patients to validate on, where the datalist names none.
        seed: by which they, or the folds, are drawn.
        folds: number of folds, None for no cross-validation.
        fold: whose held-out cases are to be scored.
        base_dir: the folder that the datalist's paths are relative to; None for ``dataset_dir``.

    Raises:
        InputError: as :func:`kvseg_monai.data.cases` and :func:`cases_of_fold` do.
    """
    check_folds(folds, fold)
    if folds is None or fold is None:
        return cases(dataset_dir, section, holdout=holdout, seed=seed, base_dir=base_dir)
    return cases_of_fold(dataset_dir, folds=folds, fold=fold, seed=seed, base_dir=base_dir)["validation"]


def _entries(dataset_dir: str | Path, base_dir: str | Path | None) -> list[Case]:
    datalist = read_datalist(dataset_dir, base_dir=base_dir)
    base = Path(base_dir or dataset_dir).resolve()
    entries: list[tuple[str, Entry]] = [(section, entry) for section in SOURCES for entry in datalist[section]]
    return [labelled(base, f"{Path(dataset_dir) / DATALIST}, {section}", entry) for section, entry in entries]


def _split(found: Collection[Case], folds: int, seed: int, path: Path) -> dict[str, int]:
    patients = {case["patient"] for case in found}
    if len(patients) < folds:
        raise InputError(
            f"{path} has {len(patients)} patient(s) in {' and '.join(SOURCES)}, fewer than the {folds} folds of "
            "--folds; give fewer folds, or name more cases"
        )
    classes: dict[str, set[int]] = defaultdict(set)
    shown = tqdm(found, desc="reading which classes occur", unit="label", disable=len(found) < MANY, leave=False)
    for case in shown:
        classes[case["patient"]] |= _classes_in(case["label"])
    return deal_folds(classes, folds, seed=seed)


def _classes_in(label: str) -> set[int]:
    reader = VolumeReader()
    try:
        values = np.unique(reader.get_data(reader.read(label))[0])
    except InputError:  # the checks of all cases come next, and say it of each
        return set()
    return {int(value) for value in values if np.isfinite(value) and value > 0}
