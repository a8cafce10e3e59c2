"""``datalist.json``: which scans train, validate and test. A patient is in one list only, whatever the seed."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_prep.common.files import write_json
from kvseg_monai.errors import InputError

SECTIONS = ("training", "validation", "test")


def split_patients(
    patients: Iterable[str], *, validation_fraction: float = 0.2, test_fraction: float = 0.1, seed: int = 0
) -> dict[str, str]:
    """Split patients into the three sections; the same input and seed give the same split on every machine.

    A section with a fraction above 0 gets at least one patient as soon as one can be spared: validation from two
    patients on, test from three on. Training always keeps at least one.

    Returns:
        Section of each patient.

    Raises:
        InputError: if a fraction is outside 0..1 or both together leave nothing to train on.
    """
    check_fractions(validation_fraction, test_fraction)
    # The order comes from a hash of the name, not from a shuffle: it does not depend on the other patients.
    ordered = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    count = len(ordered)
    validation = min(_share(count, validation_fraction), count - 1) if count >= 2 else 0
    test = min(_share(count, test_fraction), count - 1 - validation) if count >= 3 else 0
    sections = ["test"] * test + ["validation"] * validation + ["training"] * (count - test - validation)
    return dict(zip(ordered, sections, strict=True))


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise :class:`InputError` unless both fractions are in 0..1 and leave some patients to train on."""
    fractions = (("--validation-fraction", validation_fraction), ("--test-fraction", test_fraction))
    for option, fraction in fractions:
        if not (math.isfinite(fraction) and 0 <= fraction < 1):
            raise InputError(f"{option} is {fraction:g}; it must be at least 0 and below 1")
    total = validation_fraction + test_fraction
    if total >= 1:
        raise InputError(
            f"--validation-fraction and --test-fraction add up to {total:g}, which leaves nothing to train on; "
            "together they must stay below 1"
        )


def write_datalist(
    path: Path,
    items: Iterable[Mapping[str, str]],
    *,
    name: str,
    labels: Mapping[int, str],
    sections: Mapping[str, str],
    notice: str | None = None,
) -> dict:
    """Write ``datalist.json`` in one step and return what it holds.

    Args:
        path: the file.
        items: one mapping per scan with ``image``, ``label`` (paths relative to the file, with ``/``) and ``patient``.
            Those without ``label`` go into a list of their own, ``unlabelled``.
        name: what the data set is called.
        labels: class name of each label value, 0 being the background.
        sections: section of each patient, from :func:`split_patients`.
        notice: a sentence that every report on the data set must show; None for none.
    """
    content: dict = {"name": name} | ({"notice": notice} if notice else {})
    content |= {"labels": {str(value): labels[value] for value in sorted(labels)}}
    content |= {section: [] for section in SECTIONS}
    for item in sorted(items, key=lambda item: item["image"]):
        entry = {key: item[key] for key in ("image", "label", "patient") if key in item}
        section = sections[item["patient"]] if "label" in item else "unlabelled"
        content.setdefault(section, []).append(entry)
    write_json(path, content)
    return content


def _share(count: int, fraction: float) -> int:
    """Return the number of patients nearest to ``fraction`` of ``count``, at least one unless the fraction is 0."""
    return max(1, math.floor(count * fraction + 0.5)) if fraction > 0 else 0
