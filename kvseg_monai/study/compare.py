"""Every kind of attention against the reference of its net: rows of ``results.csv`` in, comparisons out."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvseg_monai.errors import InputError
from kvseg_monai.study.results import SCORES, Row
from kvseg_monai.study.statistics import difference, verdict
from kvseg_monai.utils.files import write_text

MEAN = "mean"  # the class of a patient's mean over the classes
COLUMNS = (
    *("net", "attention", "reference", "class", "metric", "seeds", "patients", "reference_mean", "mean"),
    *("difference", "low", "high", "tost_p", "margin", "verdict"),
)

Table = dict[tuple[str, str, int], dict[tuple[str, str], Row]]


def tabulate(rows: Sequence[Row]) -> Table:
    """Return (net, attention, seed) -> (patient, class) -> row.

    Raises:
        InputError: a row is there twice, or the arms were not scored on the same patients and classes.
    """
    table: Table = {}
    for row in rows:
        arm = table.setdefault((row["net"], row["attention"], row["seed"]), {})
        key = (row["patient"], row["class"])
        if key in arm:
            name = f"{row['net']}-{row['attention']}-{row['seed']}"
            raise InputError(f"the arm {name} has two rows of patient {key[0]}, class {key[1]}; keep one")
        arm[key] = row
    first = next(iter(table))
    for arm, scored in table.items():
        if set(scored) != set(table[first]):
            patient, name = min(set(scored) ^ set(table[first]))
            raise InputError(
                f"the arms {'-'.join(map(str, first))} and {'-'.join(map(str, arm))} were not scored on the same "
                f"patients: only one has patient {patient}, class {name}; complete it, or make both again"
            )
    return table


def scores(table: Table, net: str, attention: str, seeds: Sequence[int], *, cell: str, metric: str) -> np.ndarray:
    """Return a score of one class as (S, P), patients in order."""
    patients = sorted({patient for patient, _ in next(iter(table.values()))})
    return np.array([[table[net, attention, s][p, cell][metric] for p in patients] for s in seeds], float)


def seeds_of(table: Table, net: str, attention: str) -> list[int]:
    """Return the seeds of which there is a result."""
    return sorted(seed for n, kind, seed in table if (n, kind) == (net, attention))


def comparisons(table: Table, *, reference: str, margin: float) -> Iterator[Row]:
    """Yield a row per net, kind, class and metric; kinds and seeds without their reference are left out."""
    classes = [MEAN, *dict.fromkeys(name for _, name in next(iter(table.values())) if name != MEAN)]
    for net, kind in dict.fromkeys((net, kind) for net, kind, _ in table if kind != reference):
        shared = sorted({*seeds_of(table, net, kind)} & {*seeds_of(table, net, reference)})
        for cell in classes if shared else []:
            for metric in SCORES:
                if metric == "weighted_jaccard" and cell != MEAN:
                    continue
                ours, theirs = (scores(table, net, of, shared, cell=cell, metric=metric) for of in (kind, reference))
                found = {"net": net, "attention": kind, "reference": reference, "class": cell, "metric": metric}
                yield {**found, **_compare(ours, theirs, metric, margin)}


def _compare(ours: np.ndarray, theirs: np.ndarray, metric: str, margin: float) -> dict[str, Any]:
    """Compare two scores (S, P); millimetres have no margin."""
    used = margin if metric != "hd95_mm" else None
    found = difference(ours - theirs, used)
    return {
        "seeds": found.seeds,
        "patients": found.patients,
        "reference_mean": mean(theirs),
        "mean": mean(ours),
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "tost_p": found.tost_p,
        "margin": math.nan if used is None else used,
        "verdict": verdict(found, used, higher_is_better=metric != "hd95_mm"),
    }


def overall(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the comparisons of one metric over all classes."""
    return [row for row in rows if (row["class"], row["metric"]) == (MEAN, metric)]


def mean(values: np.ndarray) -> float:
    """Return the mean of what is defined, NaN where nothing is."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else math.nan


def write_comparisons(path: Path, rows: Sequence[Row]) -> Path:
    """Write comparisons as CSV; what is undefined is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return write_text(path, text.getvalue())
