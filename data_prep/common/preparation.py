"""Steps of every preparation: convert each scan once, in several processes, and write one datalist split by patient.

A source module names its scans and knows how to convert one. A scan has a ``name`` (of its files in the target), a
``patient``, and ``fingerprint()``, a hash of all that its result depends on.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from data_prep.common.datalist import check_fractions, write_datalist
from data_prep.common.files import fingerprint, read_json, write_json
from data_prep.common.parallel import as_done
from data_prep.common.target import paths
from kvseg_monai.data.datalist import DATALIST
from kvseg_monai.data.nifti import write_volume
from kvseg_monai.data.split import split_patients
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import discard, refuse_foreign
from kvseg_monai.utils.geometry import SPACING_MM, spacing_of, spans_volume
from kvseg_monai.utils.records import only_ours

FORMAT = "2"  # raise it when the meaning of the written files changes, so that old results are not taken for new


class Scan(Protocol):
    """One volume to prepare."""

    @property
    def name(self) -> str:
        """Name of its files in the target."""

    @property
    def patient(self) -> str:
        """Patient, by whom the split goes."""

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """Files of the image and, where it has any, of its label."""

    def fingerprint(self) -> str:
        """Hash of all that the result depends on."""


AnyScan = TypeVar("AnyScan", bound=Scan)


def refuse_shared(images: Iterable[tuple[str, Path]]) -> None:
    """Refuse one image under two patients: it would be trained and tested on.

    Args:
        images: patient and file of each; a file is the same under another name, by a link of either kind, too.

    Raises:
        InputError: naming both files.
    """
    owners: dict[tuple[int, int], tuple[str, Path]] = {}
    for patient, path in images:
        state = path.stat()
        owner, first = owners.setdefault((state.st_dev, state.st_ino), (patient, path))
        if owner != patient:
            raise InputError(
                f"{first} and {path} are one file under the names of two patients; a patient may be in one list only: "
                "correct the rule for the patients, or remove one of them"
            )


def write_scan(
    scan: Scan,
    target: Path,
    *,
    voxels: np.ndarray,
    labels: np.ndarray | None,
    affine: np.ndarray,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write ``images/``, ``labels/`` and, last, ``records/`` of one scan, and return its record.

    The record is what makes a scan complete: a run that stops before it begins the scan anew.

    Args:
        scan: whose files these are.
        target: the folder of the preparation.
        voxels: (x, y, slices).
        labels: the same shape, uint8; None for a scan without labels.
        affine: (4, 4), voxel index to world mm.
        facts: what else the record shall hold.

    Raises:
        InputError: when the affine spans no volume, or one of absurd voxels; when a file that is not ours is in the
            place of one of these.
    """
    _check_affine(scan.name, affine)
    image, label, record = paths(scan.name, target)
    refuse_foreign((image, label, record))
    for stale in (record, image, label):
        discard(stale)
    write_volume(image, voxels, affine)
    if labels is not None:
        write_volume(label, labels, affine)
    content = {
        "scan": scan.name,
        "patient": scan.patient,
        "labelled": labels is not None,
        **facts,
        "fingerprint": _mark(scan),
    }
    write_json(record, content)
    return content


def _check_affine(name: str, affine: np.ndarray) -> None:
    sides, (low, high) = spacing_of(affine), SPACING_MM
    finite = np.isfinite(affine).all() and all(low <= side <= high for side in sides)
    if not finite or not spans_volume(affine):
        raise InputError(
            f"{name} has voxels of {' x '.join(f'{side:.4g}' for side in sides)} mm, or axes that span no volume; "
            f"{low:g} to {high:g} mm is allowed along each axis, at right angles: correct the header or the options"
        )


def finished_record(scan: Scan, target: Path) -> dict[str, Any] | None:
    """Record of ``scan`` if an earlier run completed it from the same input, else ``None``."""
    image, label, record = paths(scan.name, target)
    content = read_json(record)
    if not isinstance(content, dict) or content.get("fingerprint") != _mark(scan):
        return None
    return content if image.is_file() and (label.is_file() or not content["labelled"]) else None


def convert_all(
    scans: Sequence[AnyScan], target: Path, convert: Callable[[AnyScan, Path], dict[str, Any]], *, workers: int
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """Convert what is not done yet: records in the order of ``scans``, sentence per failed scan, number reused.

    Args:
        scans: with names of their own each.
        target: the folder of the preparation.
        convert: writes one scan and returns its record (see :func:`write_scan`); its :class:`InputError` is the
            sentence of a scan that is left out.
        workers: processes.

    Raises:
        InputError: when a file that is not ours, or was changed since, is in the place of one to write.
    """
    records = {scan.name: finished_record(scan, target) for scan in scans}
    todo = [scan for scan in scans if records[scan.name] is None]
    refuse_foreign(path for scan in todo for path in paths(scan.name, target))
    failed: dict[str, str] = {}
    with tqdm(total=len(scans), initial=len(scans) - len(todo), desc="scans", unit="scan") as progress:
        for index, outcome in as_done(partial(_attempt, convert, target), todo, workers=workers):
            if isinstance(outcome, dict):
                records[todo[index].name] = outcome
            else:
                failed[todo[index].name] = outcome
            progress.update()
    done = [record for record in records.values() if record is not None]
    return done, dict(sorted(failed.items())), len(scans) - len(todo)


def write_split(
    records: Sequence[dict[str, Any]],
    target: Path,
    *,
    name: str,
    labels: Mapping[int, str],
    fractions: Mapping[str, float],
    seed: int,
    notice: str | None = None,
) -> dict[str, list[str]]:
    """Write ``datalist.json``, or remove it where no scan is left, and return the patients of each section.

    Args:
        records: of the scans that were converted.
        target: the folder of the preparation.
        name: of the data set.
        labels: class name of each label value.
        fractions: share of the patients in ``validation`` and in ``test``.
        seed: of the split.
        notice: a sentence that every report on the data set must show.
    """
    if not records:
        discard(target / DATALIST)
        return {}
    items = []
    for record in records:
        image, label, _ = (path.relative_to(target).as_posix() for path in paths(record["scan"], target))
        item = {"image": image, "patient": record["patient"]}
        items.append(item | ({"label": label} if record["labelled"] else {}))
    sections = split_patients((item["patient"] for item in items if "label" in item), fractions, seed=seed)
    content = write_datalist(target / DATALIST, items, name=name, labels=labels, sections=sections, notice=notice)
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    return {section: sorted({item["patient"] for item in entries}) for section, entries in lists.items()}


def add_options(parser: argparse.ArgumentParser, *, unit: str = "patients") -> None:
    """Add the options that every preparation has; ``unit`` is what the split counts."""
    add = parser.add_argument
    add("--validation-fraction", type=float, default=0.2, help=f"share of the {unit} (default: %(default)s)")
    add("--test-fraction", type=float, default=0.1, help=f"share of the {unit} (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    add("--overwrite", action="store_true", help="replace another preparation that --target holds, "
        "once the new one is whole (other files stay)")  # fmt: skip


def check_options(*, validation_fraction: float, test_fraction: float, workers: int) -> None:
    """Raise :class:`InputError` for wrong numbers among the options of :func:`add_options`."""
    check_fractions(validation_fraction, test_fraction)
    if workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")


def _attempt(convert: Callable[[AnyScan, Path], dict[str, Any]], target: Path, scan: AnyScan) -> dict[str, Any] | str:
    """Record of the scan, or the sentence that says why it was left out. Then no file of ours for it is left."""
    try:
        return convert(scan, target)
    except InputError as error:
        for path in only_ours(paths(scan.name, target)):
            path.unlink()
        return str(error)


def _mark(scan: Scan) -> str:
    return fingerprint(FORMAT, scan.name, scan.patient, scan.fingerprint())
