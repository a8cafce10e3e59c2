"""Write ``datalist.json``: which scans train, validate and test."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.common.files import write_json
from kvseg_monai.data.datalist import SECTIONS, UNLABELLED
from kvseg_monai.errors import InputError


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
) -> dict[str, Any]:
    """Write ``datalist.json`` in one step and return what it holds.

    Args:
        path: the file.
        items: one mapping per scan with ``image``, ``label`` (paths relative to the file, with ``/``) and ``patient``.
            Those without ``label`` go into a list of their own, ``unlabelled``.
        name: what the data set is called.
        labels: class name of each label value, 0 being the background.
        sections: section of each patient, from :func:`kvseg_monai.data.split.split_patients`.
        notice: a sentence that every report on the data set must show; None for none.
    """
    content: dict[str, Any] = {"name": name} | ({"notice": notice} if notice else {})
    content |= {"labels": {str(value): labels[value] for value in sorted(labels)}}
    content |= {section: [] for section in SECTIONS}
    for item in sorted(items, key=lambda item: item["image"]):
        entry = {key: item[key] for key in ("image", "label", "patient") if key in item}
        section = sections[item["patient"]] if "label" in item else UNLABELLED
        content.setdefault(section, []).append(entry)
    write_json(path, content)
    return content
