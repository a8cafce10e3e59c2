"""Prepare DICOM MR series: ``python -m data_prep.dicom --source DIR --target DIR``.

Every MR volume below the source becomes a NIfTI file, and a DICOM segmentation of it a label map (see
:mod:`kvseg_monai.dicom` and :mod:`data_prep.dicom.labels`). What kvseg_monai predicted is no ground truth and is left
out unless it is asked for. Volumes with labels are split by patient; those without go into the list ``unlabelled``.
Patients are called patient001 and so on, and volumes by series number and a hash, unless ``--keep-ids`` is given.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.common.files import file_state, fingerprint
from data_prep.common.label_table import LabelTable, voxels_per_class
from data_prep.common.parallel import in_order
from data_prep.common.preparation import add_options, write_scan
from data_prep.common.volume_set import VolumeSet, run
from data_prep.dicom.labels import draw, lies_on, parse_segment_table, table_of
from data_prep.dicom.segmentation import Segmentation, name_remarks, read_segmentation, with_class_names, without_copies
from kvseg_monai.dicom import Series, Skipped, find_series
from kvseg_monai.dicom.skipped import sentences
from kvseg_monai.errors import InputError
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.program import program

HEADERS_AT_ONCE = 32
PREDICTED = "kvseg_monai predicted it, so it is no ground truth (--predictions takes it as such)"


@dataclass(frozen=True)
class DicomScan:
    """One volume, its segmentations, and what its patient is called."""

    patient: str
    series: Series
    segmentations: tuple[Segmentation, ...]
    table: LabelTable
    keep_ids: bool

    @property
    def name(self) -> str:
        """Name of the volume."""
        return self.series.name

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """Files of the image and, where it has any, of the labels."""
        return tuple(self.series.paths), tuple(mask.path for mask in self.segmentations)

    def fingerprint(self) -> str:
        """Hash of the slices, the segmentations and the table."""
        segments = (f"{number} {one.name}" for mask in self.segmentations for number, one in mask.segments.items())
        return fingerprint(*map(file_state, chain(*self.files)), self.table.text, str(self.keep_ids), *segments)


def convert_scan(scan: DicomScan, target: Path) -> dict[str, Any]:
    """Write the volumes and the record of one scan.

    Raises:
        InputError: when a slice cannot be decoded, or a segmentation does not fit.
    """
    voxels, affine = scan.series.load()
    labels, overlap = draw(scan.segmentations, scan.series, scan.table) if scan.segmentations else (None, 0)
    facts = {
        "shape": list(voxels.shape),
        "notes": list(scan.series.notes),
        "voxels_per_class": {} if labels is None else voxels_per_class(labels, scan.table.names),
        "overlap_voxels": overlap,
    }
    if scan.keep_ids:
        facts |= {"series_uid": scan.series.uid, "files": [path.as_posix() for path in scan.series.paths]}
    return write_scan(scan, target, voxels=voxels, labels=labels, affine=affine, facts=facts)


def pseudonyms(patients: Sequence[str]) -> dict[str, str]:
    """Call patients patient001 and so on, in an order that does not depend on their identity."""
    ordered = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    return {patient: f"patient{number:03d}" for number, patient in enumerate(ordered, start=1)}


def read_source(
    source: Path,
    *,
    labels: str | None,
    split_gaps: bool,
    keep_ids: bool,
    name: str | None,
    predictions: bool = False,
    workers: int = 1,
) -> VolumeSet[Any]:
    """Find the volumes of ``source`` and the segmentations that belong to them.

    Raises:
        InputError: when ``source`` does not exist, or ``labels`` is no table.
    """
    spread = partial(in_order, workers=workers, chunk=HEADERS_AT_ONCE)
    found, skipped = find_series(source, split_gaps=split_gaps, apply=spread)
    segmentations, failed = _segmentations(source, skipped)
    masks, remarks = _belonging(found, segmentations, predictions=predictions)
    whole = [series for series in found if all(lies_on(mask, series) for mask in masks[series.name])]
    used = with_class_names({mask.name: mask for series in whole for mask in masks[series.name]})
    table = parse_segment_table(labels) if labels else table_of(used.values())
    names = pseudonyms([series.patient_id for series in found])
    scans = []
    for series in found:
        own = tuple(used.get(mask.name, mask) for mask in masks[series.name])
        patient = series.patient_id if keep_ids else names[series.patient_id]
        scans.append(DicomScan(patient, series, own, table, keep_ids))
    failed |= {item.name: item.reason for item in skipped if item.fault}
    remarks = [f"{series.name}: {note}" for series in found for note in series.notes] + remarks
    remarks += name_remarks(used.values())
    rules = (item for item in skipped if not item.fault and item.modality != "SEG")
    remarks += [f"left out: {sentence}" for sentence in sentences(rules)]
    return VolumeSet("data_prep.dicom", name or "DICOM series", scans, convert_scan, table.names, failed, remarks)


def _belonging(
    found: Sequence[Series], segmentations: Sequence[Segmentation], *, predictions: bool
) -> tuple[dict[str, list[Segmentation]], list[str]]:
    """Return the segmentations of each volume, by its name, and a remark for what is left out.

    Of the volumes that a segmentation may belong to, it is of those on whose grid it lies; where it lies on none's, it
    stays with them, and their conversion says so.
    """
    masks: dict[str, list[Segmentation]] = {series.name: [] for series in found}
    segmentations, twice = without_copies(segmentations)
    remarks = [f"left out: {mask.name}: a second copy of a segmentation" for mask in twice]
    for mask in segmentations:
        if mask.predicted and not predictions:
            remarks.append(f"left out: {mask.name}: {PREDICTED}")
            continue
        candidates = [series for series in found if mask.belongs_to(series)]
        owners = [series for series in candidates if lies_on(mask, series)] or candidates
        for series in owners:
            masks[series.name].append(mask)
        if not owners:
            remarks.append(f"left out: {mask.name}: it segments no MR volume here")
        remarks += [
            f"{series.name}: {mask.name} is no label of it, for it lies on the grid of {owners[0].name}"
            for series in candidates
            if series not in owners
        ]
    return masks, remarks


def _segmentations(source: Path, skipped: Sequence[Skipped]) -> tuple[list[Segmentation], dict[str, str]]:
    """Read the DICOM SEG objects, and return a sentence for each that cannot be read."""
    found, failed = [], {}
    root = source if source.is_dir() else source.parent
    for item in skipped:
        if item.modality == "SEG":
            try:
                found.append(read_segmentation(root / item.name, item.name))
            except InputError as error:
                failed[item.name] = str(error)
    return found, failed


def parse(arguments: list[str] | None = None) -> tuple[VolumeSet[Any], Path, dict[str, Any]]:
    """Read the command line and the headers: what there is, the target, and the options of the split."""
    parser = argparse.ArgumentParser(
        prog=program("data_prep.dicom"),
        description="Turn DICOM MR series, and DICOM segmentations of them, into NIfTI volumes and a datalist.json.",
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder with DICOM files, sorted or not")
    add("--target", type=Path, required=True, help="folder to write into: new, empty, or a run to go on with")
    add("--labels", metavar="TABLE", help='what segments mean, as "Large Intestine=large_bowel,Liver=background" '
        "(default: every segment is a class)")  # fmt: skip
    add("--predictions", action="store_true", help="take segmentations that kvseg_monai predicted as labels, too")
    add("--split-gaps", action="store_true", help="where slices are missing, make a volume of each part")
    add("--keep-ids", action="store_true", help="keep PatientID, SeriesInstanceUID and file names in the target")
    add("--name", help="of the data set, as reports show it")
    add_options(parser)
    options = vars(parser.parse_args(arguments))
    refuse_overlap(sources={"source": options["source"]}, targets={"target": options["target"]})
    names = ("source", "labels", "predictions", "split_gaps", "keep_ids", "name")
    found = read_source(**{name: options.pop(name) for name in names}, workers=max(1, options["workers"]))
    return found, options.pop("target"), options


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, prepare, print the summary; return the exit code."""
    return run(*parse(arguments))
