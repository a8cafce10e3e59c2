"""Preparation of scans of any source: the folder, its summary and the exit code."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data_prep.common.duplicate_images import find_duplicates
from data_prep.common.files import fingerprint, system_errors_as_input_errors, write_json
from data_prep.common.preparation import Scan, check_options, convert_all, refuse_shared, write_split
from data_prep.common.target import SUMMARY, opened_target
from kvseg_monai.errors import InputError


@dataclass(frozen=True)
class VolumeSet:
    """Scans of a source, and what is known of it.

    Args:
        tool: module that prepares it, which an earlier preparation is known by.
        name: of the data set.
        scans: what to convert, each with a name of its own.
        convert: writes one scan into a folder and returns its record.
        labels: class name of each label value.
        failed: what was found wrong before any conversion: name -> sentence.
        remarks: sentences that the summary repeats, as on what is left out by rule.
    """

    tool: str
    name: str
    scans: Sequence[Scan]
    convert: Callable[[Scan, Path], dict]
    labels: Mapping[int, str]
    failed: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def prepare(
    source: VolumeSet,
    target: Path,
    *,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
) -> dict:
    """Convert every scan and return the summary that is also written to ``target``.

    A scan that cannot be converted is left out and listed under ``failed``; where none is left, no ``datalist.json``
    is written. A second run goes on where the first stopped.

    Raises:
        InputError: for wrong numbers, a source without scans, scans that would share a file, and a target that holds
            something else.
    """
    check_options(validation_fraction=validation_fraction, test_fraction=test_fraction, workers=workers)
    if not source.scans:
        reasons = [*source.failed.values(), *source.remarks]
        raise InputError(
            f"--source holds nothing to prepare{': ' + reasons[0] if reasons else ''}; give another folder"
        )
    refuse_shared((scan.patient, file) for scan in source.scans for file in scan.files[0])
    table = [f"{value}={name}" for value, name in source.labels.items()]
    mark = fingerprint(*table, *(f"{scan.name} {scan.patient}" for scan in source.scans))
    names = [scan.name for scan in source.scans]
    split = {"validation_fraction": validation_fraction, "test_fraction": test_fraction, "seed": seed}
    with opened_target(target, tool=source.tool, source_fingerprint=mark, names=names, overwrite=overwrite) as folder:
        records, failed, reused = convert_all(source.scans, folder, source.convert, workers=workers)
        sections = write_split(records, folder, name=source.name, labels=source.labels, split=split)
        summary = {"tool": source.tool, "source_fingerprint": mark}
        summary |= _summary(source, records, failed={**source.failed, **failed}, reused=reused, sections=sections)
        summary["remarks"] += find_duplicates(records, folder)
        write_json(folder / SUMMARY, summary)
    return summary


def _summary(
    source: VolumeSet, records: Sequence[dict], *, failed: Mapping[str, str], reused: int, sections: Mapping
) -> dict:
    return {
        "complete": not failed,
        "labels": {str(value): name for value, name in source.labels.items()},
        "scans": len(records),
        "patients": len({record["patient"] for record in records}),
        "labelled_scans": sum(record["labelled"] for record in records),
        "reused_scans": reused,
        "voxels_per_class": _totals(records),
        "failed": failed,
        "remarks": list(source.remarks),
        "split": sections,
    }


def run(source: VolumeSet, target: Path, options: Mapping[str, Any]) -> int:
    """Prepare, print the summary, and return the exit code: 1 if something had to be left out for a fault.

    ``options`` are those of :func:`prepare`.
    """
    with system_errors_as_input_errors(target):
        summary = prepare(source, target, **options)
    print_summary(summary, target, file=sys.stdout)
    return 1 if summary["failed"] else 0


def print_summary(summary: dict, target: Path, *, file: TextIO) -> None:
    """Print the summary as text, one fact per line."""
    classes = ", ".join(f"{name} {count}" for name, count in summary["voxels_per_class"].items())
    split = "; ".join(f"{section}: {' '.join(names) or '-'}" for section, names in summary["split"].items())
    labels = ", ".join(f"{value} {name}" for value, name in summary["labels"].items())
    lines = [
        f"{summary['scans']} scans of {summary['patients']} patients in {target} ({summary['reused_scans']} done "
        f"before), {summary['labelled_scans']} with labels",
        f"labels: {labels}" if len(summary["labels"]) > 1 else "labels: none",
        f"voxels: {classes or '-'}",
        f"split by patient: {split or 'none, no scan is left'}",
    ]
    lines += summary["remarks"]
    lines += [f"LEFT OUT {name}: {sentence}" for name, sentence in summary["failed"].items()]
    print("\n".join(lines), file=file)


def _totals(records: Sequence[dict]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for record in records:
        for name, count in record["voxels_per_class"].items():
            totals[name] = totals.get(name, 0) + count
    return totals
