"""A table of files: what the ``index.csv`` of a source says of each image, by columns or by the image's own path."""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from kvseg_monai.errors import InputError

COLUMN = "column:"
FOLDER = "folder"


@dataclass(frozen=True)
class Index:
    """Rows of ``index.csv`` by its column ``file``: the image's path below the folder of images, with ``/``."""

    path: Path | None = None
    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def cell(self, file: str, column: str) -> str:
        """Return the cell of an image's row.

        Raises:
            InputError: when the row is missing or the cell empty.
        """
        text = self.rows.get(file, {}).get(column, "")
        if not text:
            lacking = f"{column} of {file}" if file in self.rows else f"row for {file}"
            raise InputError(f"{self.path} has no {lacking}; add it, or remove the image")
        return text


def read_index(path: Path | None) -> Index:
    """Read an index; None, or a file that is absent, gives an empty one.

    Raises:
        InputError: when it is no CSV file, has no column ``file``, or names a file twice.
    """
    if path is None or not path.is_file():
        return Index()
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = tuple(reader.fieldnames or ())
            table = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable CSV file in UTF-8 ({error}); get it again") from error
    if "file" not in columns:
        raise InputError(
            f"{path} has no column file (found: {', '.join(columns) or 'nothing'}); its first line must name the "
            "columns, one of them file"
        )
    rows = {row["file"]: row for row in table}
    if len(rows) < len(table):
        twice = next(row["file"] for row in table if rows[row["file"]] is not row)
        raise InputError(f"{path} names {twice} twice; each file may have one row: remove the wrong one")
    return Index(path, columns, rows)


@dataclass(frozen=True)
class Key:
    """Rule that takes a name, such as the patient's, from an image: a column, the folder, or a pattern on its path."""

    option: str
    rule: str
    index: Index

    def of(self, file: str) -> str:
        """Return the name for ``file``, the image's path below the folder of images.

        Raises:
            InputError: when the rule finds none.
        """
        if self.rule.startswith(COLUMN):
            return self.index.cell(file, self.rule.removeprefix(COLUMN))
        if self.rule == FOLDER:
            if "/" not in file:
                raise InputError(f"{file} lies in no folder of its own; {self.option} must be another rule")
            return file.split("/")[0]
        match = re.search(self.rule, file)
        if not match or not match[1]:
            raise InputError(f"{file} does not fit {self.option} '{self.rule}'; correct the pattern or rename the file")
        return match[1]


def make_key(option: str, rule: str | None, index: Index, *, column: str) -> Key | None:
    """Check a rule: ``column:NAME``, ``folder``, or a regular expression with one group.

    Args:
        option: its name on the command line.
        rule: as the user gave it; None means ``column`` where the index has it, else there is no key.
        index: of the source.
        column: the column that is taken unasked.

    Raises:
        InputError: for a column that is not there, and a pattern that is none or has not one group.
    """
    if rule is None:
        return Key(option, COLUMN + column, index) if column in index.columns else None
    if rule.startswith(COLUMN):
        if rule.removeprefix(COLUMN) not in index.columns:
            raise InputError(
                f"{option} is {rule}, but {index.path or 'the index'} has the columns "
                f"{', '.join(index.columns) or '(no such file)'}; name one of them"
            )
    elif rule != FOLDER:
        try:
            groups = re.compile(rule).groups
        except re.error as error:
            raise InputError(f"{option} '{rule}' is no regular expression ({error}); correct it") from error
        if groups != 1:
            raise InputError(
                f"{option} '{rule}' has {groups} groups; it must have one, in brackets around the name: "
                "as in '(case[0-9]+)_'"
            )
    return Key(option, rule, index)
