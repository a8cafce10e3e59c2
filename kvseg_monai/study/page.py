"""The page of a study: scores, paired differences and verdicts, patients, curves, cost, and how it was made."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kvseg_monai.report.figures import as_file
from kvseg_monai.report.page import Rows, describe_report, describe_versions, duration, write_page
from kvseg_monai.study import compare, figures
from kvseg_monai.study.compare import MEAN, arms_of, kinds_of, scores
from kvseg_monai.study.dataset import find_datalist
from kvseg_monai.study.plan import Study
from kvseg_monai.study.results import SCORES, read_curves
from kvseg_monai.study.statistics import COVERAGE, MIN_PATIENTS, RESAMPLES
from kvseg_monai.study.tables import ARMS_HEADER, DIGITS, TITLES, arms_table, difference_cell, number

MAIN = "jaccard"  # what the study's margin is of, and what the plots of single patients and of the cost show
Records = Mapping[str, Mapping[str, Any]]


def write_study_page(
    target: str | Path,
    study: Study,
    *,
    table: pd.DataFrame,
    comparisons: pd.DataFrame,
    records: Records,
    macs: Mapping[tuple[str, str], int],
    remarks: Sequence[str],
    file: str | Path,
) -> tuple[Path, dict[str, bytes]]:
    """Write the page; return its path, and by their names its figures as PNG files.

    Args:
        target: the HTML file.
        study: the study.
        table: results of the finished arms.
        comparisons: every kind against the reference.
        records: ``arm.json`` of each finished arm, by the arm's name.
        macs: multiply-accumulates of one image, by net and kind.
        remarks: sentences on what the reader must know of the arms.
        file: the study file.
    """
    nets, kinds, seeds = (table.index.unique(level) for level in ("net", "attention", "seed"))
    content = {
        "title": "Study of attention kinds",
        "notice": study.notice or _notice(study),
        "study": study,
        "patients": table.index.unique("patient").size,
        "seeds": seeds.size,
        "shown_kinds": list(kinds),
        "arms": len(arms_of(table)),
        "outcomes": [_outcome(row, table, macs) for row in compare.overall(comparisons, MAIN)],
        "forests": list(_forests(comparisons)),
        "scores": {"header": _HEADER, "rows": list(arms_table(table, macs))},
        "classes": [_class_cells(row) for row in _of_classes(comparisons)],
        "pairs": [{"net": net, "src": _pairs(study, table, net)} for net in nets],
        "curves": list(_curves(study)),
        "cost": figures.draw_cost(list(_costs(table)), reference=study.reference, title=TITLES[MAIN]),
        "remarks": remarks,
        "facts": {"coverage": COVERAGE, "least_patients": MIN_PATIENTS, "resamples": RESAMPLES},
        "manifest": {"Study": _describe(study, records), "This page": describe_report()},
        "text": without_folders(Path(file).read_text(encoding="utf-8")),
    }
    return write_page(target, "study.html.j2", content), dict(_files(content))


def _files(content: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    yield "cost", as_file(content["cost"])
    for of_metric in content["forests"]:
        yield f"difference_{of_metric['metric']}", as_file(of_metric["src"])
    for what in ("curves", "pairs"):
        for of_net in content[what]:
            yield f"{what}_{of_net['net']}", as_file(of_net["src"])


_HEADER = [{"net": "Net", "attention": "Kind", "seeds": "Seeds"}.get(name, name) for name in ARMS_HEADER]
_HEADER[-3:] = ["Parameters", "MACs", "Training"]


def _notice(study: Study) -> str | None:
    datalist = find_datalist(study.output_dir)
    return json.loads(datalist.read_text(encoding="utf-8")).get("notice") if datalist.is_file() else None


def _parameters(table: pd.DataFrame, net: str, kind: str) -> int:
    return int(table.xs((net, kind), level=("net", "attention"))["parameters"].iloc[0])


def _outcome(row: Mapping[str, Any], table: pd.DataFrame, macs: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Return what came out for one net and kind, in words and numbers."""
    kinds = (row["attention"], row["reference"])
    costs = {
        "parameters": [_parameters(table, row["net"], kind) for kind in kinds],
        "macs": [macs[row["net"], kind] for kind in kinds],
    }
    shares = {name: f"{100 * (own / reference - 1):+.1f} %" for name, (own, reference) in costs.items()}
    return {**row, "difference": difference_cell(row, digits=3), **shares}


def _forests(comparisons: pd.DataFrame) -> Iterator[dict[str, str]]:
    for metric in SCORES:
        rows = compare.overall(comparisons, metric)
        if any(math.isfinite(row["difference"]) for row in rows):
            plot = figures.draw_differences(rows, higher_is_better=metric != "hd95_mm")
            yield {"metric": metric, "title": TITLES[metric], "src": plot}


def _of_classes(comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    return comparisons[(comparisons["class"] != MEAN) & (comparisons["metric"] == MAIN)].to_dict("records")


def _class_cells(row: Mapping[str, Any]) -> list[str]:
    digits = DIGITS[row["metric"]]
    means = [number(row[key], digits) for key in ("reference_mean", "mean")]
    return [row["net"], row["attention"], row["class"].replace("_", " "), *means, difference_cell(row), row["verdict"]]


def _pairs(study: Study, table: pd.DataFrame, net: str) -> str:
    means = {kind: scores(table, net, kind, metric=MAIN).mean() for n, kind in kinds_of(table) if n == net}
    patients = list(next(iter(means.values())).index)
    drawn = {kind: of_patients.to_numpy() for kind, of_patients in means.items()}
    return figures.draw_pairs(drawn, patients, reference=study.reference, title=TITLES[MAIN])


def _costs(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for net, kind in kinds_of(table):
        of_seeds = scores(table, net, kind, metric=MAIN).mean(axis=1)
        yield {
            "net": net,
            "attention": kind,
            "parameters": _parameters(table, net, kind),
            "score": of_seeds.mean(),
            "spread": of_seeds.std(skipna=False) if len(of_seeds) > 1 else 0.0,
        }


def _curves(study: Study) -> Iterator[dict[str, str]]:
    """Draw a picture per net: a curve for each kind and seed."""
    for net, of_net in read_curves(study.output_dir).groupby("net", sort=False):
        drawn = {
            kind: [list(zip(rows["epoch"], rows["val_mean_dice"], strict=True)) for _, rows in of_kind.groupby("seed")]
            for kind, of_kind in of_net.groupby("attention", sort=False)
        }
        yield {
            "net": net,
            "src": figures.draw_learning(drawn, reference=study.reference, title="validation Dice"),
        }


def _describe(study: Study, records: Records) -> Rows:
    """Return what the arms share and on what they were computed, as rows of a table."""
    facts = {name: sorted({describe(record) for record in records.values()}) for name, describe in _FACTS.items()}
    seconds = {name: sum(record[name] for record in records.values()) for name in _TIMES} if records else {}
    return {
        "Reference": study.reference,
        "Margin": f"{study.margin:g}",
        "Seeds": ", ".join(sorted({str(record["seed"]) for record in records.values()})),
        "Patients": ", ".join(f"{len(names)} {section}" for section, names in study.split.items()),
        **{name: "; ".join(values) for name, values in facts.items() if values},
        **{title: duration(seconds[name]) for name, title in _TIMES.items() if name in seconds},
    }


_TIMES = {"training_seconds": "Training, all arms", "evaluation_seconds": "Scoring, all arms"}
_FACTS = {
    "Epochs": lambda record: str(record["epochs"]),
    "Device": lambda record: str(record["device"]),
    "Versions": lambda record: describe_versions(record["versions"]),
}


def without_folders(text: str) -> str:
    """Cut absolute paths to their last part: a page that travels must not name the machine's folders."""
    return re.sub(r"""(?m)(^|[\s"'=\[])(?:~|[A-Za-z]:)?[/\\](?:[^\s"',\]]*[/\\])?([^\s"',\]]+)""", r"\1…/\2", text)
