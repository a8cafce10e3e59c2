"""An arm's files, and those of all arms: ``results.csv`` has a row per net, attention, seed, patient and class.

Every arm writes its own; these are put together from the finished arms'. Class ``mean`` is a patient's mean over the
classes. A patient's score is the mean over the volumes in which it is defined; an empty cell: in none.
``curves.csv`` has a row per arm and epoch, ``arms.json`` the record of each arm. A report needs these three alone.
"""

import csv
import hashlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.records import is_ours, record

CONFIGURATION, RECORD, CURVE, LOCK = "configuration.json", "arm.json", "curve.csv", "lock"  # of an arm, beside FILE
GATHERED = FILE, RECORDS, CURVES = "results.csv", "arms.json", "curves.csv"  # of all arms
SCORES = ("jaccard", "weighted_jaccard", "dice", "hd95_mm")
KEYS = ("net", "attention", "seed", "patient", "class")
OF_ARM = ("parameters", "epochs", "best_epoch", "training_seconds")
COLUMNS = (*KEYS, *SCORES, "volumes", *OF_ARM)

Row = dict[str, Any]


def digest(configuration: Mapping[str, Any]) -> str:
    """Return a short hash of a configuration."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(metrics: Mapping[str, Any], record: Mapping[str, Any]) -> list[Row]:
    """Average the cases of ``metrics.json`` per patient; ``record`` gives the columns that all rows share."""
    cases: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for case in metrics["cases"]:
        cases[str(case["patient"])].append(case)
    shared = {key: record[key] for key in ("net", "attention", "seed", *OF_ARM)}
    rows = []
    for patient in sorted(cases):
        of_class = {name: [case["classes"][name] for case in cases[patient]] for name in metrics["classes"]}
        for name, scored in {**of_class, "mean": cases[patient]}.items():
            scores = {metric: _mean(scores.get(metric) for scores in scored) for metric in SCORES}
            rows.append({**shared, "patient": patient, "class": name, **scores, "volumes": len(scored)})
    return rows


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, whole or not at all; an undefined score is an empty cell."""
    return write_text(path, _as_csv(rows))


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Read rows; scores become numbers, NaN where undefined.

    Raises:
        InputError: naming file and line, for another header, a cut or broken line, or a file without rows.
    """
    text = path.read_text(encoding="utf-8")
    remedy = f"delete {path.name} and run the study again, which writes it anew from what is finished"
    lines = text.splitlines()
    if not lines or lines[0] != ",".join(COLUMNS):
        raise InputError(f"{path}, line 1: the columns are not {', '.join(COLUMNS)}; {remedy}")
    rows = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        row = dict(zip(COLUMNS, cells, strict=False))
        try:
            if len(cells) != len(COLUMNS) or (number == len(lines) and not text.endswith("\n")):
                raise ValueError
            rows.append({**row, "seed": int(row["seed"]), **{m: float(row[m] or math.nan) for m in SCORES}})
        except ValueError:
            raise InputError(
                f"{path}, line {number}: the line is cut off or broken ({','.join(cells)[:60]!r}); {remedy}"
            ) from None
    if not rows:
        raise InputError(f"{path} holds no row; {remedy}")
    return rows


def finished(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of the arms that are finished."""
    return [name for name in names if (folder / name / RECORD).is_file()]


def gather(arms_dir: Path, names: Sequence[str], target: Path) -> list[str]:
    """Put what the finished arms wrote into the files of all arms, in the folder ``target``; return which those are.

    Two processes may do so at once: each looks again after writing, so that the one that writes last has seen all. What
    holds the finished arms' results and nothing else is ours, also in a study that was made before there were records.
    """
    done: list[str] = []
    while (now := finished(arms_dir, names)) != done:
        done = now
        rows = [row for name in done for row in read_rows(arms_dir / name / FILE)]
        cells = [{**row, **{m: "" if math.isnan(row[m]) else row[m] for m in SCORES}} for row in rows]
        records = {name: _read_json(arms_dir / name / RECORD) for name in done}
        texts = (
            _as_csv(cells),
            json.dumps(records, indent=1) + "\n",
            "\n".join(_curve_lines(arms_dir, records)) + "\n",
        )
        for name, text in zip(GATHERED, texts, strict=True):
            write_text(target / name, text)
        record(target, [name for name in GATHERED if not is_ours(target / name)])
    return done


def _curve_lines(arms_dir: Path, records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of all arms' curves, each behind what the arm is."""
    yield "net,attention,seed,epoch,val_mean_dice,seconds"
    for name, told in records.items():
        file = arms_dir / name / CURVE
        lines = file.read_text(encoding="utf-8").splitlines()[1:] if file.is_file() else []
        yield from (f"{told['net']},{told['attention']},{told['seed']},{line}" for line in lines)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the record of each finished arm by its name, as gathered in a study's folder."""
    return _read_json(folder / RECORDS) if (folder / RECORDS).is_file() else {}


def read_curves(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``curves.csv`` in a study's folder."""
    file = folder / CURVES
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
