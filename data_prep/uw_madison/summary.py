"""Summary of a preparation of the UW-Madison data, as a dictionary, a JSON file and text."""

from pathlib import Path
from typing import TextIO

from data_prep.common.files import write_json
from data_prep.common.target import SUMMARY
from data_prep.uw_madison.scan import OVERLAP_RULE
from data_prep.uw_madison.table import CLASSES


def summarise(records: list[dict], *, failed: dict[str, str], excluded: list[str], reused: int) -> dict:
    """Add up the records of the scans.

    Args:
        records: of each good scan, from ``uwm_scan.convert_scan``.
        failed: sentence of each scan that was left out for damaged images.
        excluded: known bad scans that were left out.
        reused: number of scans that an earlier run had done.
    """
    totals = ("slices", "slices_with_organ", "overlap_pixels", "overlap_slices")
    return {
        "scans": len(records),
        "cases": len({record["patient"] for record in records}),
        "reused_scans": reused,
        **{key: sum(record[key] for record in records) for key in totals},
        "slices_per_class": {organ: sum(record["slices_per_class"][organ] for record in records) for organ in CLASSES},
        "overlap_rule": OVERLAP_RULE,
        "excluded_bad_scans": excluded,
        "failed": failed,
        "rows_without_scan": [],
        "split": {},
    }


def write_summary(target: Path, summary: dict) -> None:
    """Write ``summary.json``."""
    write_json(target / SUMMARY, summary)


def print_summary(summary: dict, target: Path, *, file: TextIO) -> None:
    """Print the summary as text, one fact per line."""
    organs = ", ".join(f"{organ} {count}" for organ, count in summary["slices_per_class"].items())
    split = "; ".join(f"{section}: {' '.join(cases) or '-'}" for section, cases in summary["split"].items())
    lines = [
        f"{summary['scans']} scans of {summary['cases']} cases in {target} ({summary['reused_scans']} done before)",
        f"{summary['slices']} slices, {summary['slices_with_organ']} with an organ ({organs})",
        f"{summary['overlap_pixels']} overlapping pixels in {summary['overlap_slices']} slices; "
        f"{summary['overlap_rule']}",
        f"split by case: {split or 'none, no scan is left'}",
    ]
    if summary["excluded_bad_scans"]:
        lines.append(
            f"left out as known bad (--include-bad-scans uses them): {' '.join(summary['excluded_bad_scans'])}"
        )
    absent = summary["rows_without_scan"]
    if absent:
        shown = " ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        lines.append(f"not in the source, though train.csv has rows for them: {len(absent)} scans ({shown})")
    lines += [f"LEFT OUT {scan}: {sentence}" for scan, sentence in summary["failed"].items()]
    print("\n".join(lines), file=file)
