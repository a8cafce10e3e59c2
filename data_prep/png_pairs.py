"""Prepare folders of PNG slices and masks: ``python -m data_prep.png_pairs --source DIR --target DIR --labels TABLE``.

An image (gray, 8 or 16 bits) and its mask (gray or palette) have the same path below ``images`` and ``masks``. An
``index.csv`` with a column ``file`` may name ``patient``, ``scan``, ``slice`` and ``spacing_mm`` of each image. Slices
of one scan with numbers in a row become one volume; any other slice is a volume of its own.

PNG does not say where a slice lies. It is taken as radiologists display axial slices: columns to the patient's left,
rows to the back, slice numbers towards the feet.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from data_prep.files import file_state, fingerprint
from data_prep.index import Index, Key, make_key, read_index
from data_prep.label_table import LabelTable, apply_table, parse_number_table, voxels_per_class
from data_prep.nifti import add_pair_options, take_layout
from data_prep.nifti_io import radiological_affine
from data_prep.pairs import Layout, Pair, find_pairs, flat_names
from data_prep.png_io import read_png
from data_prep.preparation import write_scan
from data_prep.volume_set import VolumeSet, run
from kvseg_monai.errors import InputError, run_command

IMAGE_KINDS = ("8-bit gray", "16-bit gray")
MASK_KINDS = (*IMAGE_KINDS, "8-bit palette", "4-bit palette", "2-bit palette", "1-bit palette")


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
    """How the slices of a source belong together; a rule that is None does not apply."""

    patient: Key
    scan: Key | None
    number: Key | None
    spacing: Key | tuple[float, float]
    gap: float | None  # mm between slices

    def spacing_of(self, file: str) -> tuple[float, float]:
        """Spacing of columns and rows in mm."""
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
    given = spacing is not None and not spacing.startswith("column:")
    sizes = parse_spacing(spacing) if given else make_key("--spacing", spacing, index, column="spacing_mm")
    if patients is None or sizes is None:
        option, what = ("--patient", "whose image it is") if patients is None else ("--spacing", "its pixel size in mm")
        raise InputError(f"{option} is missing, and no index.csv says of an image {what}; give it (see --help)")
    if slice_gap is not None and not (math.isfinite(slice_gap) and slice_gap > 0):
        raise InputError(f"--slice-gap is {slice_gap:g}; it must be above 0 mm")
    scans = make_key("--scan", scan, index, column="scan")
    return Rules(patients, scans, make_key("--slice", slice_, index, column="slice"), sizes, slice_gap)


def find_scans(source: Path, layout: Layout, rules: Rules, table: LabelTable) -> tuple[list[PngScan], dict[str, str]]:
    """Return the scans of ``source``, and what has no partner or is inconsistent: name -> sentence.

    Raises:
        InputError: for a folder that is missing, an image that a rule does not fit, and slices without --slice-gap.
    """
    pairs, failed = find_pairs(source, layout)
    names = flat_names([pair.stem for pair in pairs])
    scans = []
    for name, slices in _volumes(pairs, rules, names, failed):
        try:
            scans.append(_scan(name, slices, rules, table))
        except InputError as error:
            failed[name] = str(error)
    thick = next((scan for scan in scans if len(scan.slices) > 1), None)
    if thick and rules.gap is None:
        raise InputError(f"--slice-gap is missing; {thick.name} has {len(thick.slices)} slices: give mm between them")
    return scans, failed


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
            whole = scan.replace("/", "_") if len(rows) == 1 else f"{scan.replace('/', '_')}_{row[0]:04d}"
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


def read_gray(file: Path, kinds: tuple[str, ...]) -> np.ndarray:
    """Read a PNG of one of ``kinds`` as (height, width).

    Raises:
        InputError: for any other file.
    """
    pixels, kind = read_png(file)
    if kind not in kinds:
        raise InputError(f"{file} is {kind}; allowed are {', '.join(kinds)}: save it as one of these")
    return pixels


def convert_scan(scan: PngScan, target: Path) -> dict:
    """Write the volumes and the record of one scan.

    Raises:
        InputError: when a file cannot be read, sizes differ, or a mask holds unknown values.
    """
    images, labels = [], []
    for pair in scan.slices:
        image, mask = read_gray(pair.image, IMAGE_KINDS), read_gray(pair.mask, MASK_KINDS)
        for file, pixels in ((pair.mask, mask), (pair.image, image)):
            expected = image if file == pair.mask else (images or [image])[0]
            if pixels.shape != expected.shape:
                raise InputError(
                    f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels, not {expected.shape[1]} x "
                    f"{expected.shape[0]} (width x height) as {'its image' if file == pair.mask else 'the first slice'}"
                    "; both must be equal: make it again"
                )
        images.append(image)
        labels.append(apply_table(mask, scan.table, file=pair.mask))
    voxels, label = np.stack(images).T, np.stack(labels).T  # (slice, y, x) -> (x, y, slice)
    facts = {"shape": list(voxels.shape), "voxels_per_class": voxels_per_class(label, scan.table.names)}
    affine = radiological_affine(scan.spacing, towards_feet=True)
    return write_scan(scan, target, voxels=voxels, labels=label, affine=affine, facts=facts)


def parse(arguments: list[str] | None = None) -> tuple[VolumeSet, Path, dict]:
    """Read the command line and the names of the files: what there is, the target, and the options of the split."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.png_pairs", description="Turn PNG slices and masks into volumes and a datalist.json."
    )
    add_pair_options(parser, masks="masks")
    add = parser.add_argument
    add("--spacing", help="mm between pixels, as 1.5 or 1.5,1.6, or column:NAME (default: column:spacing_mm)")
    add("--slice-gap", type=float, help="mm between the slices of a volume (a lone slice counts as 1 mm thick)")
    add("--scan", metavar="RULE", help="which slices make a volume, as --patient (default: column:scan)")
    add("--slice", metavar="RULE", dest="slice_", help="number of a slice, as --patient (default: column:slice)")
    options = vars(parser.parse_args(arguments))
    layout = take_layout(options, (".png",))
    source, table = options.pop("source"), parse_number_table(options.pop("labels"))
    index = read_index(options.pop("index") or source / "index.csv")
    names = ("patient", "scan", "slice_", "spacing", "slice_gap")
    rules = make_rules(index, **{name: options.pop(name) for name in names})
    name = options.pop("name") or "PNG images and masks"
    scans, failed = find_scans(source, layout, rules, table)
    found = VolumeSet("data_prep.png_pairs", name, scans, convert_scan, table.names, failed)
    return found, options.pop("target"), options


if __name__ == "__main__":
    run_command(lambda: run(*parse()))
