"""The tables of a study as text, for its Markdown and its page alike."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from kvseg_monai.study.compare import kinds_of, metrics_of, scores

TITLES = {"jaccard": "Jaccard", "weighted_jaccard": "Weighted Jaccard", "dice": "Dice", "hd95_mm": "HD95 in mm"}
DIGITS = {"jaccard": 4, "weighted_jaccard": 4, "dice": 4, "hd95_mm": 2}
ARMS_HEADER = ("net", "attention", "seeds", *TITLES.values(), "weights", "MACs", "training")


def number(value: float, digits: int, sign: str = "") -> str:
    """Write a number, what is undefined as a dash."""
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def difference_cell(row: Mapping[str, Any], digits: int | None = None) -> str:
    """Write a comparison's difference with its interval; ``digits`` None means those of its metric."""
    digits = DIGITS[row["metric"]] if digits is None else digits
    low, high = (number(row[bound], digits, "+") for bound in ("low", "high"))
    return f"{number(row['difference'], digits, '+')} [{low}, {high}]"


def arms_table(table: pd.DataFrame, macs: Mapping[tuple[str, str], int]) -> Iterator[list[str]]:
    """Yield a row per net and attention: scores, weights, ``macs`` of one image, seconds of training."""
    for net, kind in kinds_of(table):
        arms = table.xs((net, kind), level=("net", "attention")).groupby("seed").first()
        cells = dict.fromkeys(TITLES, "–")
        for metric in metrics_of(table):
            of_seeds = scores(table, net, kind, metric=metric).mean(axis=1)
            spread = f" ({number(of_seeds.std(skipna=False), DIGITS[metric])})" if len(arms) > 1 else ""
            cells[metric] = number(of_seeds.mean(), DIGITS[metric]) + spread
        costs = [f"{int(arms['parameters'].iloc[0]):,}", f"{macs[net, kind] / 1e9:.3f} G"]
        seconds = arms["training_seconds"].astype(float).mean()
        yield [net, kind, str(len(arms)), *cells.values(), *costs, f"{seconds:.0f} s"]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
