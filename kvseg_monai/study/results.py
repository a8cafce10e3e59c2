"""An arm's files, and those of all arms: ``results.csv`` has a row per net, attention, seed, patient and class.

Every arm writes its own; these are put together from the finished arms'. Class ``mean`` is a patient's mean over the
classes. A patient's score is the mean over the volumes in which it is defined; an empty cell: in none.
``curves.csv`` has a row per arm and epoch, ``arms.json`` the record of each arm. A report needs these three alone.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.records import is_ours, record

CONFIGURATION, RECORD, CURVE, LOCK = "configuration.json", "arm.json", "curve.csv", "lock"  # of an arm, beside FILE
GATHERED = FILE, RECORDS, CURVES = "results.csv", "arms.json", "curves.csv"  # of all arms
SCORES = ("jaccard", "weighted_jaccard", "dice", "hd95_mm")
KEYS = ("net", "attention", "seed", "patient", "class")
OF_ARM = ("parameters", "epochs", "best_epoch", "training_seconds")
REQUIRED = (*KEYS, "volumes", *OF_ARM)  # a score may be missing: that of a metric that is newer than the results
COLUMNS = (*KEYS, *SCORES, "volumes", *OF_ARM)
CURVE_COLUMNS = ("net", "attention", "seed", "epoch", "val_mean_dice", "seconds")


def digest(configuration: Mapping[str, Any]) -> str:
    """Return a short hash of a configuration."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> pd.DataFrame:
    """Average the cases of ``metrics.json`` per patient; ``record`` gives the columns that all rows share."""
    scored = [
        {"patient": str(case["patient"]), "class": name, **{metric: scores.get(metric) for metric in SCORES}}
        for case in metrics["cases"]
        for name, scores in {**{name: case["classes"][name] for name in metrics["classes"]}, "mean": case}.items()
    ]
    cases = pd.DataFrame(scored).astype(dict.fromkeys(SCORES, float)).sort_values("patient", kind="stable")
    patients = cases.groupby(["patient", "class"], sort=False)
    rows = patients.mean().assign(volumes=patients.size()).reset_index()
    return rows.assign(**{key: record[key] for key in ("net", "attention", "seed", *OF_ARM)})[list(COLUMNS)]


def write_rows(path: Path, rows: pd.DataFrame) -> Path:
    """Write rows as CSV, whole or not at all; an undefined score is an empty cell."""
    return write_text(path, as_csv(rows))


def as_csv(rows: pd.DataFrame) -> str:
    """Return rows as CSV; what is undefined is an empty cell."""
    return rows.to_csv(index=False, lineterminator="\n")


def read_rows(path: Path) -> pd.DataFrame:
    """Read rows by the names of their columns, in any order; others are left out.

    Returns:
        Columns as in :data:`COLUMNS`: ``seed`` is an integer, scores are numbers, NaN where undefined, and all else is
        text. Metrics that the file does not have are left out.

    Raises:
        InputError: naming the file and a missing column, or a cut or broken line; or the file has no rows.
    """
    cells = _read_cells(path)
    scores = [name for name in SCORES if name in cells]
    cells[scores] = cells[scores].replace("", "nan")
    return cells.astype({"seed": int, **dict.fromkeys(scores, float)})


def _read_cells(path: Path) -> pd.DataFrame:
    """Read the columns that are known, as text, in which ``seed`` and scores are numbers."""
    text = path.read_text(encoding="utf-8")
    try:
        cells = _read_text(text)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:  # which names the line
        raise InputError(f"{path} cannot be read as a table ({error}); {_restored(path)}") from error
    if missing := [name for name in REQUIRED if name not in cells]:
        raise InputError(
            f"{path}, line 1: there is no column {', '.join(missing)}; give the file as kvseg_monai.study wrote it, "
            f"with the columns {', '.join(COLUMNS)}, in any order"
        )
    if cells.empty:
        raise InputError(f"{path} holds no row; {_restored(path)}")
    cells = cells[[name for name in COLUMNS if name in cells]]
    broken = _broken(cells)
    broken.iloc[-1] |= not text.endswith("\n")
    if broken.any():
        line = int(broken.argmax()) + 2
        found = text.splitlines()[line - 1][:60]
        raise InputError(f"{path}, line {line}: the line is cut off or broken ({found!r}); {_restored(path)}")
    return cells


def _read_text(text: str) -> pd.DataFrame:
    """Read a table whose cells stay text; a cell that a line lacks is NaN, which the faster engine makes empty."""
    options = {"header": None, "skip_blank_lines": False}  # no header: a long first line would become an index
    lines = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, engine="python", **options)
    cells = lines[1:].set_axis(list(lines.iloc[0]), axis=1).reset_index(drop=True)
    return cells.loc[:, ~cells.columns.duplicated()]


def _broken(cells: pd.DataFrame) -> pd.Series:
    """Return for each row whether it lacks a cell, or has none or no number where one is needed."""
    scores = cells[[name for name in SCORES if name in cells]]
    no_number = scores.apply(pd.to_numeric, errors="coerce").isna() & scores.ne("")
    empty = cells[list(REQUIRED)].eq("")
    lacking = cells.isna()
    return lacking.any(axis=1) | empty.any(axis=1) | no_number.any(axis=1) | ~cells["seed"].fillna("").str.isdecimal()


def _restored(path: Path) -> str:
    return (
        f"copy it again from its source or, where the arms are still there, delete {path.name} and make the report "
        "again, which writes it anew from them"
    )


def finished(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of the arms that are finished."""
    return [name for name in names if (folder / name / RECORD).is_file()]


def gather(arms_dir: Path, names: Sequence[str], target: Path) -> list[str]:
    """Put what the finished arms wrote into the files of all arms, in the folder ``target``; return which those are.

    Two processes may do so at once: each reads again after writing, so that the one that writes last has seen all. What
    holds the finished arms' results and nothing else is ours, also in a study that was made before there were records.
    """
    done: list[str] = []
    while (now := finished(arms_dir, names)) != done:
        done = now
        rows = pd.concat([pd.DataFrame(columns=KEYS), *(read_rows(arms_dir / name / FILE) for name in done)])
        records = {name: _read_json(arms_dir / name / RECORD) for name in done}
        texts = as_csv(rows), json.dumps(records, indent=1) + "\n", as_csv(_gather_curves(arms_dir, records))
        for name, text in zip(GATHERED, texts, strict=True):
            write_text(target / name, text)
        record(target, [name for name in GATHERED if not is_ours(target / name)])
    return done


def _gather_curves(arms_dir: Path, records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return all arms' curves, each row behind what the arm is."""
    curves = [pd.DataFrame(columns=CURVE_COLUMNS)]
    for name, facts in records.items():
        file = arms_dir / name / CURVE
        if file.is_file():
            identity = {key: facts[key] for key in ("net", "attention", "seed")}
            curves.append(_read_text(file.read_text(encoding="utf-8")).assign(**identity))
    return pd.concat(curves)[list(CURVE_COLUMNS)]


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the record of each finished arm by its name, as gathered in a study's folder."""
    return _read_json(folder / RECORDS) if (folder / RECORDS).is_file() else {}


def read_curves(folder: Path) -> pd.DataFrame:
    """Return the rows of ``curves.csv`` in a study's folder, without the epochs that were not validated."""
    file = folder / CURVES
    return (pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=CURVE_COLUMNS)).dropna(subset="val_mean_dice")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
