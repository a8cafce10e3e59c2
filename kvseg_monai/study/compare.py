"""Every kind of attention against the reference of its net: rows of ``results.csv`` in, comparisons out.

A table has the index (net, attention, seed, patient, class) and a column for each score and each fact of the arms.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from kvseg_monai.errors import InputError
from kvseg_monai.study.results import KEYS, SCORES, as_csv
from kvseg_monai.study.statistics import difference, verdict
from kvseg_monai.utils.files import write_text

ARM = ["net", "attention", "seed"]
MEAN = "mean"  # the class of a patient's mean over the classes
COLUMNS = (
    *("net", "attention", "reference", "class", "metric", "seeds", "patients", "reference_mean", "mean"),
    *("difference", "low", "high", "tost_p", "margin", "verdict"),
)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a table, in their order; an infinite score counts as undefined.

    Raises:
        InputError: a row is there twice, or the arms were not scored on the same patients and classes.
    """
    table = rows.set_index(list(KEYS))
    metrics = metrics_of(table)
    table[metrics] = table[metrics].astype(float).replace([math.inf, -math.inf], math.nan)
    for *arm, patient, name in table.index[table.index.duplicated()]:
        raise InputError(f"the arm {_name(arm)} has two rows of patient {patient}, class {name}; keep one")
    keys = table.index.to_frame(index=False)
    scored = {arm: set(zip(of["patient"], of["class"], strict=True)) for arm, of in keys.groupby(ARM, sort=False)}
    first = next(iter(scored))
    for arm, keys in scored.items():
        if differing := keys ^ scored[first]:
            patient, name = min(differing)
            raise InputError(
                f"the arms {_name(first)} and {_name(arm)} were not scored on the same patients: only one has patient "
                f"{patient}, class {name}; complete it, or make both again"
            )
    return table


def _name(arm: Iterable[Any]) -> str:
    return "-".join(map(str, arm))


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the metrics of which there are scores."""
    return [metric for metric in SCORES if metric in table]


def arms_of(table: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Return net, attention and seed of the arms, in their order."""
    return list(table.index.droplevel(["patient", "class"]).unique())


def kinds_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of net and attention kind, in their order."""
    return list(dict.fromkeys((net, kind) for net, kind, _ in arms_of(table)))


def scores(table: pd.DataFrame, net: str, attention: str, *, metric: str, cell: str = MEAN) -> pd.DataFrame:
    """Return a score of one class as (S, P), seeds by patients, both in order."""
    return table.xs((net, attention, cell), level=("net", "attention", "class"))[metric].unstack("patient")


def comparisons(table: pd.DataFrame, *, reference: str, margin: float) -> pd.DataFrame:
    """Return a row per net, kind, class and metric; kinds and seeds without their reference are left out."""
    classes = [MEAN, *table.index.unique("class").drop(MEAN)]
    rows = [
        {"net": net, "attention": kind, "reference": reference, "class": cell, "metric": metric}
        | _compare(
            scores(table, net, kind, metric=metric, cell=cell),
            scores(table, net, reference, metric=metric, cell=cell),
            metric,
            margin,
        )
        for net, kind in _kinds_beside(table, reference)
        for cell in classes
        for metric in metrics_of(table)
        if metric != "weighted_jaccard" or cell == MEAN
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _kinds_beside(table: pd.DataFrame, reference: str) -> Iterable[tuple[str, str]]:
    """Return the pairs of net and kind that share a seed with the reference."""
    arms = arms_of(table)
    return dict.fromkeys((net, k) for net, k, seed in arms if k != reference and (net, reference, seed) in arms)


def _compare(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str, margin: float) -> dict[str, Any]:
    """Compare two scores (S, P) in the seeds that both have; millimetres have no margin."""
    ours, theirs = ours.align(theirs, join="inner")
    used = margin if metric != "hd95_mm" else None
    found = difference((ours - theirs).to_numpy(), used)
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


def mean(values: pd.DataFrame) -> float:
    """Return the mean of all that is defined, NaN where nothing is."""
    return float(pd.Series(values.to_numpy().ravel()).mean())


def overall(rows: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """Return the comparisons of one metric over all classes."""
    return rows[(rows["class"] == MEAN) & (rows["metric"] == metric)].to_dict("records")


def write_comparisons(path: Path, rows: pd.DataFrame) -> Path:
    """Write comparisons as CSV; what is undefined is an empty cell."""
    return write_text(path, as_csv(rows))
