"""The tables of a study: ``comparisons.csv`` and ``report.md``."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvseg_monai.errors import InputError
from kvseg_monai.files import write_text
from kvseg_monai.study import compare, results
from kvseg_monai.study.compare import MEAN, Table, mean
from kvseg_monai.study.plan import Study
from kvseg_monai.study.results import SCORES, Row
from kvseg_monai.study.state import arms_dir, refuse_unmatched
from kvseg_monai.study.statistics import MIN_PATIENTS, RESAMPLES

TITLES = {"jaccard": "Jaccard", "weighted_jaccard": "Weighted Jaccard", "dice": "Dice", "hd95_mm": "HD95 in mm"}
DIGITS = {"jaccard": 4, "weighted_jaccard": 4, "dice": 4, "hd95_mm": 2}
RULES = """\
Scores are those of test patients, on the original label grid; a patient's volumes are averaged, and so are the classes.
A difference is a kind's score minus that of `{reference}` in the same net, seed and patient, where both are defined.
Brackets hold its 95 % percentile interval over {resamples} bootstrap draws of patients and, independently, seeds.
TOST p is that of two one-sided paired t-tests against a margin of {margin:g} in Jaccard, weighted Jaccard and Dice; its
unit is the patient, whose seeds are averaged first. HD95 has no margin.

- *equivalent*: p < 0.05 and the interval lies within the margin, be zero in it or not.
- *better*, *worse*: otherwise, and the interval leaves out zero.
- *undecided at this sample size*: all else, and always below {patients} patients.

Intervals and p-values are not adjusted for the number of comparisons. With few seeds the interval is too narrow: with
3 seeds and 16 patients it held the truth in 85 to 92 % of simulated studies.
"""


def load(study: Study) -> Table:
    """Return the results of the finished arms; ``results.csv`` is brought up to date.

    Raises:
        InputError: nothing is finished, a file is cut off, or arms do not match.
    """
    target = study.output_dir / results.FILE
    if target.is_file():
        results.read_rows(target)
    names = [arm.name for arm in study.arms]
    refuse_unmatched(study)
    if not results.merge(arms_dir(study), names, target) and not target.is_file():
        raise InputError(
            f"{study.output_dir} has no finished arm; make some: python -m kvseg_monai.study run STUDY.yaml"
        )
    return compare.tabulate(results.read_rows(target))


def write_report(study: Study) -> list[Path]:
    """Compare the finished arms; write ``comparisons.csv`` and ``report.md`` and return their paths."""
    table = load(study)
    rows = list(compare.comparisons(table, reference=study.reference, margin=study.margin))
    text = "\n".join(_lines(study, table, rows)) + "\n"
    return [
        compare.write_comparisons(study.output_dir / "comparisons.csv", rows),
        write_text(study.output_dir / "report.md", text),
    ]


def _lines(study: Study, table: Table, rows: Sequence[Row]) -> Iterator[str]:
    yield f"# Attention kinds against `{study.reference}`\n"
    for metric in SCORES:
        yield f"## {TITLES[metric]}\n"
        header = (
            "net",
            "attention",
            "seeds",
            "patients",
            f"`{study.reference}`",
            "score",
            "difference",
            "TOST p",
            "verdict",
        )
        yield from markdown(header, [_cells(r) for r in rows if (r["class"], r["metric"]) == (MEAN, metric)])
        yield ""
    yield RULES.format(reference=study.reference, resamples=RESAMPLES, margin=study.margin, patients=MIN_PATIENTS)
    yield "## Arms\n\nMean over test patients and seeds (in parentheses: standard deviation over seeds).\n"
    yield from markdown(("net", "attention", "seeds", *TITLES.values(), "weights", "training"), arms_table(table))
    yield from _remarks(study, table)


def _cells(row: Row) -> list[str]:
    digits = DIGITS[row["metric"]]
    bounds = f"[{_number(row['low'], digits, '+')}, {_number(row['high'], digits, '+')}]"
    return [
        *(str(row[key]) for key in ("net", "attention", "seeds", "patients")),
        *(_number(row[key], digits) for key in ("reference_mean", "mean")),
        f"{_number(row['difference'], digits, '+')} {bounds}",
        _number(row["tost_p"], 4),
        row["verdict"],
    ]


def arms_table(table: Table) -> Iterator[list[str]]:
    """Yield a row per net and attention: scores, weights, seconds of training."""
    for net, kind in dict.fromkeys((net, kind) for net, kind, _ in table):
        seeds = compare.seeds_of(table, net, kind)
        first = [next(iter(table[net, kind, seed].values())) for seed in seeds]
        cells = [net, kind, str(len(seeds))]
        for metric in SCORES:
            of_seed = [mean(compare.scores(table, net, kind, [s], cell=MEAN, metric=metric)) for s in seeds]
            spread = f" ({_number(float(np.std(of_seed, ddof=1)), DIGITS[metric])})" if len(seeds) > 1 else ""
            cells.append(_number(mean(np.array(of_seed)), DIGITS[metric]) + spread)
        yield [*cells, first[0]["parameters"], f"{mean(np.array([float(r['training_seconds']) for r in first])):.0f} s"]


def _remarks(study: Study, table: Table) -> Iterator[str]:
    missing = [a.name for a in study.arms if (a.net, a.attention, a.seed) not in table]
    if missing:
        yield f"\n**Not finished, and not in these tables:** {', '.join(missing)}."
    records = [json.loads(file.read_text("utf-8")) for file in sorted(arms_dir(study).glob(f"*/{results.RECORD}"))]
    for what in ("device", "versions"):
        found = sorted({json.dumps(record[what]) for record in records})
        if len(found) > 1:
            yield f"\n**The arms differ in {what}:** {'; '.join(found)}."


def markdown(header: Sequence[str], rows: Any) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _number(value: float, digits: int, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"
