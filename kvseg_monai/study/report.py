"""Reports of a study: ``comparisons.csv``, ``report.md``, the page ``report.html`` and its figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kvseg_monai.errors import InputError
from kvseg_monai.report.page import describe_versions, refuse_page
from kvseg_monai.study import compare, results
from kvseg_monai.study.compare import arms_of, metrics_of
from kvseg_monai.study.cost import count_macs_of
from kvseg_monai.study.page import write_study_page
from kvseg_monai.study.plan import Study
from kvseg_monai.study.results import SCORES
from kvseg_monai.study.state import arms_dir, refuse_unmatched
from kvseg_monai.study.statistics import COVERAGE, MIN_PATIENTS, RESAMPLES
from kvseg_monai.study.tables import ARMS_HEADER, DIGITS, TITLES, arms_table, difference_cell, markdown, number
from kvseg_monai.utils.files import refuse_foreign, write_bytes, write_text
from kvseg_monai.utils.overlap import refuse_overlap

COMPARISONS, REPORT = "comparisons.csv", "report.md"
RULES = """\
Scores are those of test patients, on the original label grid; a patient's volumes are averaged, and so are the classes.
A difference is a kind's score minus that of `{reference}` in the same net, seed and patient, where both are defined.
Brackets hold its 95 % percentile interval over {resamples} bootstrap draws of patients and, independently, seeds.
TOST p is that of two one-sided paired t-tests against a margin of {margin:g} in Jaccard, weighted Jaccard and Dice; its
unit is the patient, whose seeds are averaged first. HD95 has no margin.

- *equivalent*: p < 0.05 and the interval lies within the margin, be zero in it or not.
- *better*, *worse*: otherwise, and the interval leaves out zero.
- *undecided at this sample size*: all else, and always below {patients} patients.

Intervals and p-values are not adjusted for the number of comparisons. {coverage}
"""


def load(study: Study) -> pd.DataFrame:
    """Return the results of the finished arms; the files of all arms are brought up to date.

    Where the arms themselves are not, as in a study that somebody else has run, those files are enough.

    Raises:
        InputError: nothing is finished, a file is cut off, arms do not match, or are not the study's.
    """
    target = study.output_dir / results.FILE
    if target.is_file():
        results.read_rows(target)
    names = [arm.name for arm in study.arms]
    refuse_unmatched(study)
    if not results.gather(arms_dir(study), names, study.output_dir) and not target.is_file():
        raise InputError(
            f"{study.output_dir} has no finished arm; make some: python -m kvseg_monai.study run STUDY.yaml"
        )
    table = compare.tabulate(results.read_rows(target))
    foreign = {"-".join(map(str, arm)) for arm in arms_of(table)} - set(names)
    if foreign:
        raise InputError(f"{target} has arms that the study file does not name: {', '.join(sorted(foreign))}")
    return table


def write_report(study: Study, *, file: str | Path, page: str | Path | None = None) -> list[Path]:
    """Compare the finished arms; write ``comparisons.csv``, ``report.md`` and the page, and return their paths.

    Args:
        study: as read from the file.
        file: the study file, whose text the page shows.
        page: the HTML file to write; None means ``report.html`` beside the others.

    Raises:
        InputError: before the work, where a file would take the place of one that is not ours, or lie in the data.
    """
    page = Path(page or study.output_dir / "report.html")
    refuse_overlap(
        sources={"dataset_dir": study.dataset_dir, "study file": file},
        targets={"output_dir": study.output_dir, "html": page},
    )
    refuse_page(page, "html")
    refuse_foreign(study.output_dir / name for name in _written(study))
    table = load(study)
    rows = compare.comparisons(table, reference=study.reference, margin=study.margin)
    records = results.read_records(study.output_dir)
    macs = count_macs_of(study, table)
    remarks = list(_remarks(study, table, records))
    written, figures = write_study_page(
        page,
        study,
        table=table,
        comparisons=rows,
        records=records,
        macs=macs,
        remarks=remarks,
        file=file,
    )
    pictures = [write_bytes(study.output_dir / "figures" / f"{name}.png", figure) for name, figure in figures.items()]
    lines = [*_lines(study, table, rows, macs=macs, remarks=remarks), *_links(figures)]
    return [
        compare.write_comparisons(study.output_dir / COMPARISONS, rows),
        write_text(study.output_dir / REPORT, "\n".join(lines) + "\n"),
        written,
        *pictures,
    ]


def _written(study: Study) -> list[str]:
    """Return what a report writes into the study's folder beside its page."""
    nets = dict.fromkeys(arm.net for arm in study.arms)
    of_nets = [f"{what}_{net}" for what in ("curves", "pairs") for net in nets]
    figures = ["cost", *(f"difference_{metric}" for metric in SCORES), *of_nets]
    return [COMPARISONS, REPORT, *(f"figures/{name}.png" for name in figures)]


def _links(figures: Iterable[str]) -> Iterator[str]:
    """Yield the figures, as Markdown shows them."""
    yield "\n## Figures\n"
    yield from (f"![{name.replace('_', ' ')}](figures/{name}.png)" for name in figures)


def _lines(
    study: Study,
    table: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    macs: Mapping[tuple[str, str], int],
    remarks: Sequence[str],
) -> Iterator[str]:
    yield f"# Attention kinds against `{study.reference}`\n"
    if study.notice:
        yield f"**{study.notice}**\n"
    for metric in metrics_of(table):
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
        yield from markdown(header, map(_cells, compare.overall(rows, metric)))
        yield ""
    numbers = {"resamples": RESAMPLES, "margin": study.margin, "patients": MIN_PATIENTS, "coverage": COVERAGE}
    yield RULES.format(reference=study.reference, **numbers)
    yield "## Arms\n\nMean over test patients and seeds (in parentheses: standard deviation over seeds).\n"
    yield from markdown(ARMS_HEADER, arms_table(table, macs))
    yield from (f"\n{remark}" for remark in remarks)


def _cells(row: dict[str, Any]) -> list[str]:
    digits = DIGITS[row["metric"]]
    return [
        *(str(row[key]) for key in ("net", "attention", "seeds", "patients")),
        *(number(row[key], digits) for key in ("reference_mean", "mean")),
        difference_cell(row),
        number(row["tost_p"], 4),
        row["verdict"],
    ]


def _remarks(study: Study, table: pd.DataFrame, records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield sentences on what the reader must know of the arms."""
    there = arms_of(table)
    missing = [a.name for a in study.arms if (a.net, a.attention, a.seed) not in there]
    if missing:
        yield f"Not finished, and not in these tables: {', '.join(missing)}."
    unknown = [TITLES[metric] for metric in SCORES if metric not in metrics_of(table)]
    if unknown:
        yield f"Not in these results, which are older: {', '.join(unknown)}."
    described: dict[str, Callable[[Any], str]] = {"device": str, "versions": describe_versions}
    for what, describe in described.items():
        found = sorted({describe(record[what]) for record in records.values()})
        if len(found) > 1:
            yield f"The arms differ in {what}: {'; '.join(found)}."
