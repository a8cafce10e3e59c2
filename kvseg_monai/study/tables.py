"""The tables of a study as text, for its Markdown and its page alike."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kvseg_monai.study import compare
from kvseg_monai.study.compare import MEAN, Table, mean
from kvseg_monai.study.results import SCORES, Row

TITLES = {"jaccard": "Jaccard", "weighted_jaccard": "Weighted Jaccard", "dice": "Dice", "hd95_mm": "HD95 in mm"}
DIGITS = {"jaccard": 4, "weighted_jaccard": 4, "dice": 4, "hd95_mm": 2}
ARMS_HEADER = ("net", "attention", "seeds", *TITLES.values(), "weights", "training")


def number(value: float, digits: int, sign: str = "") -> str:
    """Write a number, what is undefined as a dash."""
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def difference_cell(row: Row, digits: int | None = None) -> str:
    """Write a comparison's difference with its interval; ``digits`` None means those of its metric."""
    digits = DIGITS[row["metric"]] if digits is None else digits
    low, high = (number(row[bound], digits, "+") for bound in ("low", "high"))
    return f"{number(row['difference'], digits, '+')} [{low}, {high}]"


def arms_table(table: Table) -> Iterator[list[str]]:
    """Yield a row per net and attention: scores, weights, seconds of training."""
    for net, kind in dict.fromkeys((net, kind) for net, kind, _ in table):
        seeds = compare.seeds_of(table, net, kind)
        first = [next(iter(table[net, kind, seed].values())) for seed in seeds]
        cells = [net, kind, str(len(seeds))]
        for metric in SCORES:
            of_seed = [mean(compare.scores(table, net, kind, [s], cell=MEAN, metric=metric)) for s in seeds]
            spread = f" ({number(float(np.std(of_seed, ddof=1)), DIGITS[metric])})" if len(seeds) > 1 else ""
            cells.append(number(mean(np.array(of_seed)), DIGITS[metric]) + spread)
        weights = f"{int(first[0]['parameters']):,}"
        yield [*cells, weights, f"{mean(np.array([float(r['training_seconds']) for r in first])):.0f} s"]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
