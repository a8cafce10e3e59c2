"""Averages of scored cases, and the files that hold them: ``metrics.json`` and ``metrics.csv``."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.metrics.case import CASE_METRICS, CLASS_METRICS
from kvseg_monai.metrics.overlap import KAGGLE, PROTOCOLS, mean, means
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.old_names import METRICS

FILES = ("metrics.json", "metrics.csv")
AVERAGES = (
    "All scores are taken on the original label grid. Each class is averaged over the volumes where it is defined and "
    "the mean is taken over the classes, while the weighted Jaccard (per-class Jaccard weighted by the class's voxels "
    "in the volume's label) is averaged over the volumes that have any label."
)
SLICE_PROTOCOLS = ("all_slices", "non_empty_slices")
CSV_COLUMNS = (
    *("case", "patient", "class", *CASE_METRICS, "label_ml", "prediction_ml"),
    *(f"kaggle_{part}" for part in ("score", "dice", "hausdorff")),
    *(f"{metric}_{protocol}" for protocol in SLICE_PROTOCOLS for metric in (*CASE_METRICS, "kaggle")),
)


def summarise(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Average scored cases into the layout of ``metrics.json``; its ``protocol`` says what is averaged over what.

    Args:
        cases: results of :func:`kvseg_monai.metrics.case.score_case`, each with ``case`` and ``patient`` added; further
            keys are kept.
        class_names: the foreground classes that were scored.

    Returns:
        ``mean`` and ``classes`` per volume (with ``cases``: defined in so many, ``false_negatives``: label without
        prediction, ``false_positives``: prediction without label), ``cases`` and ``protocol``; beside them
        ``protocols`` and ``kaggle``, each table with ``mean``, ``classes`` and ``protocol``, the treatment of empty
        masks in words.

    Raises:
        InputError: there is no case.

    Examples:
        >>> import numpy as np
        >>> from kvseg_monai.metrics import score_case
        >>> label = np.ones((4, 4, 2), np.uint8)
        >>> scores = score_case(label, label, class_names=["liver"], spacing=(1, 1, 1))
        >>> summary = summarise([{"case": "a", "patient": "p1", **scores}], ["liver"])
        >>> summary["mean"]["dice"], summary["classes"]["liver"]["false_negatives"]
        (1.0, 0)
    """
    if not cases:
        raise InputError("no case was scored: the list is empty, or all were refused; give one valid case with a label")
    protocols = {
        name: {**_average([case["protocols"][name] for case in cases], class_names), "protocol": text}
        for name, text in PROTOCOLS.items()
    }
    whole = protocols["per_volume"]
    counts = {name: _count([case["classes"][name] for case in cases]) for name in class_names}
    return {
        "mean": {metric: whole["mean"][metric] for metric in CASE_METRICS},
        "classes": {
            name: {**{metric: whole["classes"][name][metric] for metric in CLASS_METRICS}, **counts[name]}
            for name in class_names
        },
        "protocols": protocols,
        "kaggle": {**_average([case["kaggle"] for case in cases], class_names), "protocol": KAGGLE},
        "cases": [dict(case) for case in cases],
        "protocol": f"{PROTOCOLS['per_volume']} {AVERAGES}",
    }


def write_metrics(summary: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write ``metrics.json`` and ``metrics.csv`` (a row per case and class, and a row "mean" per case).

    Undefined scores are ``null`` and an empty cell. A reader never meets half a file.

    Raises:
        InputError: the folder cannot be made because a file is in its place.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from kvseg_monai.metrics import read_metrics, score_case
        >>> label = np.ones((4, 4, 2), np.uint8)
        >>> scores = score_case(label, label, class_names=["liver"], spacing=(1, 1, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_metrics(summarise([{"case": "a", "patient": "p1", **scores}], ["liver"]), folder)
        ...     read_metrics(Path(folder, "metrics.json"))["mean"]["dice"]
        1.0
    """
    folder = Path(folder)
    texts = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", _as_csv(summary)
    for name, text in zip(FILES, texts, strict=True):
        write_text(folder / name, text)


def _average(tables: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Average one protocol's tables, one per case, over the cases and then over the classes."""
    classes = {name: means(table["classes"][name] for table in tables) for name in class_names}
    over_all = means(classes.values())
    if "weighted_jaccard" in tables[0]:
        over_all["weighted_jaccard"] = mean(table["weighted_jaccard"] for table in tables)
    return {"mean": over_all, "classes": classes}


def _count(scores: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "cases": sum(s["dice"] is not None for s in scores),
        "false_negatives": sum(s["label_ml"] > 0 and s["prediction_ml"] == 0 for s in scores),
        "false_positives": sum(s["label_ml"] == 0 and s["prediction_ml"] > 0 for s in scores),
    }


def _as_csv(summary: Mapping[str, Any]) -> str:
    text = io.StringIO()
    folds = ("fold",) if "fold" in summary["cases"][0] else ()  # of a cross-validation alone
    columns = (*CSV_COLUMNS[:2], *folds, *CSV_COLUMNS[2:])
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")  # None becomes an empty cell
    table.writeheader()
    for case in summary["cases"]:
        who = {name: case[name] for name in ("case", "patient", *folds)}
        for name, scores in case["classes"].items():
            table.writerow({**scores, **_further_cells(case, name), **who, "class": name})
        table.writerow({**case, **_further_cells(case), "class": "mean"})
    return text.getvalue()


def _further_cells(case: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Return the Kaggle score and the slice by slice scores of one class, or of the case over all classes."""
    kaggle, *slices = (
        table["classes"][name] if name else table
        for table in (case["kaggle"], *(case["protocols"][protocol] for protocol in SLICE_PROTOCOLS))
    )
    cells = {f"kaggle_{part}": value for part, value in kaggle.items()}
    for protocol, scores in zip(SLICE_PROTOCOLS, slices, strict=True):
        cells |= {f"{metric}_{protocol}": value for metric, value in scores.items()}
    return cells


def read_metrics(path: Path) -> dict[str, Any]:
    """Read and check ``metrics.json``, also one with the names of version 0.1.0.

    Raises:
        InputError: it is missing, no JSON, or lacks what the report shows.

    Examples:
        >>> from kvseg_monai.errors import InputError
        >>> try:
        ...     read_metrics(Path("nowhere", "metrics.json"))
        ... except InputError as error:
        ...     print(str(error).partition(";")[0])
        nowhere/metrics.json does not exist
    """
    remedy = "write it with the bundle's evaluate.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist; {remedy}, or give its folder as --evaluation") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}") from None
    try:
        protocols = list(metrics.get("protocols", {}).values())
        scored = [metrics["mean"], *metrics["cases"], *(protocol["mean"] for protocol in protocols)]
        tables = [scores["classes"] for scores in (metrics, *metrics["cases"], *protocols)]
        complete = all(metric in scores for scores in scored for metric in CASE_METRICS)
        complete &= all(m in table[name] for table in tables for name in metrics["classes"] for m in CLASS_METRICS)
        complete &= all("case" in case and "patient" in case for case in metrics["cases"])
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not (complete and metrics["cases"]):
        raise InputError(f'{path} lacks part of "mean", "classes" or "cases", or has no case at all; {remedy}')
    classes = metrics["classes"].items()
    return {**metrics, "classes": {name: _with_new_names(scores) for name, scores in classes}}


def _with_new_names(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {METRICS.get(name, name): value for name, value in scores.items()}
