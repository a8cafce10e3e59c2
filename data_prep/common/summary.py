"""Summary of a preparation, as ``summary.json`` holds it and as text."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Contents:
    """Contents of the volumes, as a summary words them.

    Args:
        count: records of the scans -> entries of the summary.
        describe: summary -> lines of the text.
    """

    count: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
    describe: Callable[[dict[str, Any]], list[str]]


def add_up(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of each key's numbers."""
    totals: Counter[str] = Counter()
    for table in tables:
        totals.update(table)
    return dict(totals)


def _count_voxels(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "labelled_scans": sum(record["labelled"] for record in records),
        "voxels_per_class": add_up([record["voxels_per_class"] for record in records]),
    }


def _describe_voxels(summary: dict[str, Any]) -> list[str]:
    classes = ", ".join(f"{name} {count}" for name, count in summary["voxels_per_class"].items())
    labels = ", ".join(f"{value} {name}" for value, name in summary["labels"].items())
    return [f"labels: {labels}" if len(summary["labels"]) > 1 else "labels: none", f"voxels: {classes or '-'}"]


VOXELS = Contents(_count_voxels, _describe_voxels)


def print_summary(summary: dict[str, Any], target: Path, *, contents: Contents, unit: str, file: TextIO) -> None:
    """Print the summary as text, one fact per line.

    Args:
        summary: what was found.
        target: the folder of the preparation.
        contents: that of the source.
        unit: what a patient is called in the data.
        file: where to.
    """
    split = "; ".join(f"{section}: {' '.join(names) or '-'}" for section, names in summary["split"].items())
    labelled = f", {summary['labelled_scans']} with labels" if "labelled_scans" in summary else ""
    lines = [
        f"{summary['scans']} scans of {summary['patients']} {unit}s in {target} ({summary['reused_scans']} done "
        f"before){labelled}",
        *contents.describe(summary),
        f"split by {unit}: {split or 'none, no scan is left'}",
        *summary["remarks"],
        *(f"LEFT OUT {name}: {sentence}" for name, sentence in summary["failed"].items()),
    ]
    print("\n".join(lines), file=file)
