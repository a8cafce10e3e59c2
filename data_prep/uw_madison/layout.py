"""Find the scans of the UW-Madison GI Tract layout and check, before anything is written, all that is cheap to check.

Layout: ``train/case123/case123_day20/scans/slice_0001_266_266_1.50_1.50.png`` beside ``train.csv``. A file name holds
the slice number, width and height in pixels, and the spacing of columns and of rows in mm. Slices are 3 mm apart.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.common.files import fingerprint
from data_prep.uw_madison.rle import parse_runs
from data_prep.uw_madison.table import CLASSES, ScanRows
from kvseg_monai.errors import InputError

SLICE_GAP_MM = 3.0

# Scans with labels or images known to be wrong, after the list that a co-author of the data published.
_BAD = "7_day0 9_day27 13_day0 34_day20 43_day18 43_day26 61_day14 81_day30 83_day11 124_day19 138_day0 144_day15"
BAD_SCANS = frozenset(f"case{name}" for name in _BAD.split())

_SCAN = re.compile(r"(case\d+)_day\d+")
_SLICE = re.compile(r"slice_(\d{1,6})_(\d{1,5})_(\d{1,5})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)\.png")


@dataclass(frozen=True)
class Scan:
    """One scan: ``slices[i]`` is slice ``numbers[i]``, ascending without gaps; ``rows`` are its labels."""

    name: str
    case: str
    slices: tuple[Path, ...]
    numbers: tuple[int, ...]
    width: int
    height: int
    spacing: tuple[float, float]  # mm between columns, between rows
    rows: ScanRows

    @property
    def patient(self) -> str:
        """Patient, by whom the split goes."""
        return self.case

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """Files of the image; the labels have none of their own."""
        return (self.slices,)

    def fingerprint(self) -> str:
        """Hash of what the result depends on: file names (they hold the geometry), file sizes and label rows."""
        files = [f"{file.name} {file.stat().st_size}" for file in self.slices]
        rows = [f"{n} {organ} {text}" for n in self.numbers for organ, text in sorted(self.rows[n].items())]
        return fingerprint(*files, *rows)


def locate(source: Path) -> tuple[Path, Path]:
    """Return the folder with the cases and path of ``train.csv``; ``source`` may be the folder ``train`` itself."""
    if not source.is_dir():
        raise InputError(f"--source {source} is not a folder; give the folder that holds train.csv and train")
    cases = source / "train" if (source / "train").is_dir() else source
    tables = [folder / "train.csv" for folder in (source, cases, cases.parent)]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise InputError(f"{source} has no train.csv; give the folder that holds train.csv and the folder train")
    return cases, table


def scan_folders(cases: Path) -> list[Path]:
    """Return all scan folders under ``cases``, in the order of case and day number.

    Raises:
        InputError: if there is none, one has a wrong name, or one lies in the folder of another case.
    """
    folders = [path for path in cases.glob("case*/case*") if path.is_dir()]
    if not folders:
        raise InputError(
            f"{cases} holds no scan; scans lie in train/case123/case123_day20/scans: "
            "give the folder that holds train.csv and train"
        )
    for folder in folders:
        match = _SCAN.fullmatch(folder.name)
        if not match:
            raise InputError(f"{folder} is not named like case123_day20; rename or remove the folder")
        if match[1] != folder.parent.name:
            raise InputError(
                f"{folder} lies in the folder of {folder.parent.name}; a scan must lie in the folder of its own case: "
                "move or rename it"
            )
    return sorted(folders, key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)])


def read_scan(folder: Path, table: dict[str, ScanRows]) -> Scan:
    """Read the file names and label rows of one scan; opens no image.

    Raises:
        InputError: for a folder without slices, a name outside the layout, a missing or second slice, slices of
            different size or spacing, label rows that are missing, and run-length texts that do not fit the image.
    """
    slices = _read_names(folder)
    numbers = tuple(number for number, _, _ in slices)
    width, height, *spacing = slices[0][2]
    rows = table.get(folder.name)
    if rows is None:
        raise InputError(
            f"{folder} has no rows in train.csv; every slice needs one row per class: "
            "get the train.csv that belongs to the images, or remove the scan"
        )
    _check_rows(folder, numbers, rows, pixels=width * height)
    return Scan(
        name=folder.name,
        case=folder.parent.name,
        slices=tuple(file for _, file, _ in slices),
        numbers=numbers,
        width=width,
        height=height,
        spacing=tuple(spacing),
        rows=rows,
    )


def _read_names(folder: Path) -> list[tuple[int, Path, tuple[Any, ...]]]:
    """Return the slices of a scan in order: (number, file, (width, height, column spacing, row spacing))."""
    files = sorted(file for file in folder.glob("scans/*.png") if not file.name.startswith("."))
    if not files:
        raise InputError(f"{folder / 'scans'} holds no PNG file; get the scan again or remove its folder")
    slices = sorted((_parse_name(file) for file in files), key=lambda item: item[0])
    for (one, file, geometry), (two, other, other_geometry) in pairwise(slices):
        if one == two:
            raise InputError(f"{folder} holds slice {one} twice ({file.name}, {other.name}); remove the wrong one")
        if two != one + 1:
            raise InputError(f"{folder} lacks slice {one + 1} (found {one}, then {two}); get the scan again")
        if geometry != other_geometry:
            raise InputError(
                f"{folder} mixes slice sizes or spacings ({file.name}, {other.name}); "
                "all slices of a scan must agree: get the scan again"
            )
    return slices


def _parse_name(file: Path) -> tuple[int, Path, tuple[Any, ...]]:
    match = _SLICE.fullmatch(file.name)
    geometry = (int(match[2]), int(match[3]), float(match[4]), float(match[5])) if match else (0,)
    if match is None or min(geometry) <= 0:
        raise InputError(
            f"{file} is not a slice name; names hold number, width, height and two spacings above 0, "
            "as in slice_0001_266_266_1.50_1.50.png: rename or remove the file"
        )
    return int(match[1]), file, geometry


def _check_rows(folder: Path, numbers: tuple[int, ...], rows: ScanRows, *, pixels: int) -> None:
    absent = sorted(set(rows) - set(numbers))
    if absent:
        raise InputError(
            f"{folder} lacks slice {absent[0]}, which train.csv has rows for ({len(absent)} such slices); "
            "get the scan again"
        )
    for number in numbers:
        missing = [organ for organ in CLASSES if organ not in rows.get(number, {})]
        if missing:
            raise InputError(
                f"train.csv has no row for {folder.name}_slice_{number:04d} and {', '.join(missing)}; "
                "every slice needs one row per class, with an empty segmentation where the organ is absent: "
                "get the file again"
            )
        for organ in CLASSES:
            try:
                parse_runs(rows[number][organ], pixels)
            except InputError as error:
                raise InputError(f"train.csv, {folder.name}_slice_{number:04d}, {organ}: {error}") from None
