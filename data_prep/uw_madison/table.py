"""``train.csv`` of the UW-Madison GI Tract data: one row per slice and organ, checked from the first to the last."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from kvseg_monai.errors import InputError

CLASSES = ("large_bowel", "small_bowel", "stomach")  # label values 1, 2, 3
LABELS = dict(enumerate(("background", *CLASSES)))
COLUMNS = ("id", "class", "segmentation")

# Run-length text of each organ, for each slice of one scan: {slice number: {class: text}}.
ScanRows = dict[int, dict[str, str]]

_ID = re.compile(r"(case\d+_day\d+)_slice_(\d{1,6})")


def read_table(path: Path) -> dict[str, ScanRows]:
    """Read ``train.csv`` into the rows of each scan.

    Other columns than ``id``, ``class`` and ``segmentation`` are ignored. The run-length texts are not read here,
    because their image sizes stand in the file names.

    Raises:
        InputError: for a missing file or column, a malformed id, an unknown class, and a second row for the same slice
            and class. The sentence names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return _read_rows(csv.DictReader(stream), path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); put the competition's train.csv beside the folder train"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8 ({error}); get the file again") from error


def _read_rows(reader: "csv.DictReader[str]", path: Path) -> dict[str, ScanRows]:
    found = [name for name in reader.fieldnames or [] if name]
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise InputError(
            f"{path} has no column {_listed(missing)} (found: {_listed(found) or 'nothing'}); "
            f"the first line must name the columns {_listed(COLUMNS)}"
        )
    table: dict[str, ScanRows] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():  # how DictReader marks a cell too many and too few
            raise InputError(f"{where} has not one cell for each column; correct the line or get the file again")
        scan, number = _parse_id(row["id"], where)
        organ = row["class"].strip()
        if organ not in CLASSES:
            raise InputError(f"{where} names the class '{organ}'; allowed are {_listed(CLASSES)}: correct the line")
        organs = table.setdefault(scan, {}).setdefault(number, {})
        if organ in organs:
            raise InputError(
                f"{where} is a second row for '{row['id']}' and {organ}; one is allowed: remove the wrong line"
            )
        organs[organ] = row["segmentation"].strip()
    if not table:
        raise InputError(f"{path} holds no rows under its column names; get the file again")
    return table


def _parse_id(text: str, where: str) -> tuple[str, int]:
    match = _ID.fullmatch(text.strip())
    if not match:
        raise InputError(f"{where} has the id '{text[:60]}'; ids look like case123_day20_slice_0001: correct the line")
    return match[1], int(match[2])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
