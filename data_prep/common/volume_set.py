"""Preparation of scans of any source: the folder, its summary and the exit code."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from data_prep.common.duplicate_images import find_duplicates
from data_prep.common.files import fingerprint, system_errors_as_input_errors, write_json
from data_prep.common.preparation import AnyScan, check_options, convert_all, refuse_shared, write_split
from data_prep.common.summary import VOXELS, Contents, print_summary
from data_prep.common.target import SUMMARY, opened_target
from kvseg_monai.errors import InputError


@dataclass(frozen=True)
class VolumeSet(Generic[AnyScan]):
    """Scans of a source, and what is known of it.

    Args:
        tool: module that prepares it, which an earlier preparation is known by.
        name: of the data set.
        scans: what to convert, each with a name of its own.
        convert: writes one scan into a folder and returns its record.
        labels: class name of each label value.
        failed: what was found wrong before any conversion: name -> sentence.
        remarks: sentences that the summary repeats, as on what is left out by rule.
        facts: what else the summary shall hold.
        contents: what the summary says of what the volumes hold.
        unit: what a patient is called in the data.
        notice: a sentence that every report on the data set must show.
        mark: what the source is known by in a second run; "" for its labels, and the names and patients of its scans.
    """

    tool: str
    name: str
    scans: Sequence[AnyScan]
    convert: Callable[[AnyScan, Path], dict[str, Any]]
    labels: Mapping[int, str]
    failed: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    contents: Contents = VOXELS
    unit: str = "patient"
    notice: str | None = None
    mark: str = ""

    @property
    def source_fingerprint(self) -> str:
        """Hash of what the source is known by."""
        table = (f"{value}={name}" for value, name in self.labels.items())
        return self.mark or fingerprint(*table, *(f"{scan.name} {scan.patient}" for scan in self.scans))


def prepare(
    source: VolumeSet[Any],
    target: Path,
    *,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
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
    mark = {"tool": source.tool, "source_fingerprint": source.source_fingerprint}
    names = [scan.name for scan in source.scans]
    fractions = {"validation": validation_fraction, "test": test_fraction}
    with opened_target(target, **mark, names=names, overwrite=overwrite) as folder:
        records, failed, reused = convert_all(source.scans, folder, source.convert, workers=workers)
        sections = write_split(
            records,
            folder,
            name=source.name,
            labels=source.labels,
            fractions=fractions,
            seed=seed,
            notice=source.notice,
        )
        summary = mark | _summary(source, records, failed={**source.failed, **failed}, reused=reused, sections=sections)
        summary["remarks"] += find_duplicates(records, folder)
        write_json(folder / SUMMARY, summary)
    return summary


def _summary(
    source: VolumeSet[Any],
    records: Sequence[dict[str, Any]],
    *,
    failed: Mapping[str, str],
    reused: int,
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "complete": not failed,
        "labels": {str(value): name for value, name in source.labels.items()},
        "scans": len(records),
        "patients": len({record["patient"] for record in records}),
        "reused_scans": reused,
        **source.contents.count(records),
        **source.facts,
        "failed": failed,
        "remarks": list(source.remarks),
        "split": sections,
    }


def run(source: VolumeSet[Any], target: Path, options: Mapping[str, Any]) -> int:
    """Prepare, print the summary, and return the exit code: 1 if something had to be left out for a fault.

    ``options`` are those of :func:`prepare`.
    """
    with system_errors_as_input_errors(target):
        summary = prepare(source, target, **options)
    print_summary(summary, target, contents=source.contents, unit=source.unit, file=sys.stdout)
    return 1 if summary["failed"] else 0
