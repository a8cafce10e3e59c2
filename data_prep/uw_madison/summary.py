"""Summary of the UW-Madison data: slices, those with an organ, and where organs overlap."""

from collections.abc import Sequence
from typing import Any

from data_prep.common.summary import Contents, add_up
from data_prep.uw_madison.scan import OVERLAP_RULE
from data_prep.uw_madison.table import CLASSES

_TOTALS = ("slices", "slices_with_organ", "overlap_pixels", "overlap_slices")


def _count_slices(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{key: sum(record[key] for record in records) for key in _TOTALS},
        "slices_per_class": dict.fromkeys(CLASSES, 0) | add_up([record["slices_per_class"] for record in records]),
        "overlap_rule": OVERLAP_RULE,
    }


def _describe_slices(summary: dict[str, Any]) -> list[str]:
    organs = ", ".join(f"{organ} {count}" for organ, count in summary["slices_per_class"].items())
    return [
        f"{summary['slices']} slices, {summary['slices_with_organ']} with an organ ({organs})",
        f"{summary['overlap_pixels']} overlapping pixels in {summary['overlap_slices']} slices; "
        f"{summary['overlap_rule']}",
    ]


SLICES = Contents(_count_slices, _describe_slices)
