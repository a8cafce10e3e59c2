"""Scans of a folder of PNG slices: their order, patient and voxel size, all known before an image is opened."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data_prep.common.files import file_state, fingerprint
from data_prep.common.index import Index, Key, make_key
from data_prep.common.label_table import LabelTable
from data_prep.common.pairs import Found, Layout, Pair, find_pairs, flat_name, flat_names
from kvseg_monai.errors import InputError


@dataclass(frozen=True)
class PngScan:
    """Slices of one scan in order, each an image and its mask."""

    name: str
    patient: str
    slices: tuple[Pair, ...]
    spacing: tuple[float, float, float]  # mm between columns, rows, slices
    table: LabelTable

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """Files of the image and of the labels."""
        return tuple(pair.image for pair in self.slices), tuple(pair.mask for pair in self.slices)

    def fingerprint(self) -> str:
        """Hash of the table, the spacing, and of size and time of the files."""
        return fingerprint(self.table.text, str(self.spacing), *map(file_state, chain(*self.files)))


@dataclass(frozen=True)
class Rules:
    """Rules by which the slices of a source belong together; a rule that is None does not apply."""

    patient: Key
    scan: Key | None
    number: Key | None
    spacing: Key | tuple[float, float]
    gap: float | None  # mm between slices

    def spacing_of(self, file: str) -> tuple[float, float]:
        """Return the spacing of columns and rows in mm."""
        return parse_spacing(self.spacing.of(file)) if isinstance(self.spacing, Key) else self.spacing


def parse_spacing(text: str) -> tuple[float, float]:
    """Read ``1.5`` or ``1.5,1.6``: mm between columns, between rows.

    Raises:
        InputError: when these are not one or two numbers above 0.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise InputError(f"--spacing is '{text[:60]}'; it must be one or two numbers above 0 in mm, as 1.5 or 1.5,1.6")
    return numbers[0], numbers[-1]


def make_rules(
    index: Index,
    *,
    patient: str | None,
    scan: str | None,
    slice_: str | None,
    spacing: str | None,
    slice_gap: float | None,
) -> Rules:
    """Check the rules that the user gave, and take the others from the columns of the index.

    Raises:
        InputError: when the patient or the spacing is not known.
    """
    patients = make_key("--patient", patient, index, column="patient")
    sizes: Key | tuple[float, float] | None
    if spacing is not None and not spacing.startswith("column:"):
        sizes = parse_spacing(spacing)
    else:
        sizes = make_key("--spacing", spacing, index, column="spacing_mm")
    if patients is None or sizes is None:
        option, what = ("--patient", "whose image it is") if patients is None else ("--spacing", "its pixel size in mm")
        raise InputError(f"{option} is missing, and no index.csv says of an image {what}; give it (see --help)")
    if slice_gap is not None and not (math.isfinite(slice_gap) and slice_gap > 0):
        raise InputError(f"--slice-gap is {slice_gap:g}; it must be above 0 mm")
    scans = make_key("--scan", scan, index, column="scan")
    return Rules(patients, scans, make_key("--slice", slice_, index, column="slice"), sizes, slice_gap)


def find_scans(source: Path, layout: Layout, rules: Rules, table: LabelTable) -> tuple[list[PngScan], Found]:
    """Return the scans of ``source``, and what was found with them; an inconsistent scan is among what failed.

    Raises:
        InputError: for a folder that is missing, an image that a rule does not fit, and slices without --slice-gap.
    """
    found = find_pairs(source, layout)
    names = flat_names([pair.stem for pair in found.pairs])
    scans = []
    for name, slices in _volumes(found.pairs, rules, names, found.failed):
        try:
            scans.append(_scan(name, slices, rules, table))
        except InputError as error:
            found.failed[name] = str(error)
    thick = next((scan for scan in scans if len(scan.slices) > 1), None)
    if thick and rules.gap is None:
        raise InputError(f"--slice-gap is missing; {thick.name} has {len(thick.slices)} slices: give mm between them")
    return scans, found


def _volumes(
    pairs: Sequence[Pair], rules: Rules, names: dict[str, str], failed: dict[str, str]
) -> Iterator[tuple[str, list[Pair]]]:
    """Yield name and slices of each volume: numbers in a row of one scan, or a slice alone."""
    if rules.scan is None or rules.number is None:
        yield from ((names[pair.stem], [pair]) for pair in pairs)
        return
    groups: dict[str, dict[int, Pair]] = defaultdict(dict)
    for pair in pairs:
        scan, number = rules.scan.of(pair.file), _whole(rules.number.of(pair.file), pair.file)
        other = groups[scan].setdefault(number, pair)
        if other is not pair:
            failed[names[pair.stem]] = f"{pair.file} and {other.file} are both slice {number} of {scan}; remove one"
    for scan, slices in sorted(groups.items()):
        rows = _in_a_row(sorted(slices))
        for row in rows:
            whole = flat_name(scan) if len(rows) == 1 else f"{flat_name(scan)}_{row[0]:04d}"
            yield whole if len(row) > 1 else names[slices[row[0]].stem], [slices[number] for number in row]


def _in_a_row(numbers: list[int]) -> list[list[int]]:
    """Cut ascending numbers wherever one is missing."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return rows


def _whole(text: str, file: str) -> int:
    if not text.isdecimal():
        raise InputError(f"the slice number of {file} is '{text[:60]}'; it must be a whole number: correct --slice")
    return int(text)


def _scan(name: str, slices: list[Pair], rules: Rules, table: LabelTable) -> PngScan:
    patients = {rules.patient.of(pair.file) for pair in slices}
    spacings = {rules.spacing_of(pair.file) for pair in slices}
    if len(patients) > 1 or len(spacings) > 1:
        what = "patients" if len(patients) > 1 else "spacings"
        raise InputError(f"the slices of {name} have different {what}; they must agree: correct the index or --scan")
    return PngScan(name, patients.pop(), tuple(slices), (*spacings.pop(), rules.gap or 1.0), table)
