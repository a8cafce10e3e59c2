"""Show measured costs as Markdown, CSV or JSON, and put the Markdown between two markers of a README."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import edit_text

BEGIN, END = "<!-- complexity:begin -->", "<!-- complexity:end -->"

# title of a column -> what it shows of a row
_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "network": lambda row: row["network"],
    "attention": lambda row: f"`{row['attention']}`",
    "parameters, M": lambda row: f"{row['parameters'] / 1e6:.1f} ({row['parameters_ratio']:.3f})",
    "complete MACs, G": lambda row: f"{row['macs_complete'] / 1e9:.2f} ({row['macs_complete_ratio']:.3f})",
    "conv + linear MACs, G": lambda row: f"{row['macs_conv_linear'] / 1e9:.2f} ({row['macs_conv_linear_ratio']:.3f})",
    "latency, ms": lambda row: f"{row['latency_ms']:.1f} ({row['latency_ratio']:.3f} ± {_spread(row):.3f})",
    "peak memory, MiB": lambda row: f"{row['memory_mib']:.1f} ({row['memory_mib_ratio']:.3f})",
    "of it activations": lambda row: f"{row['activations_mib']:.1f}",
    "of the GEMM rate": lambda row: f"{row['gemm_share']:.0%}",
}


def _spread(row: Mapping[str, Any]) -> float:
    """Return half of the interquartile range of the latency's ratio."""
    return (row["latency_ratio_high"] - row["latency_ratio_low"]) / 2


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the table and, beneath it, how it was measured."""
    rows = result["rows"]
    lines = [_COLUMNS, ["---", "---", *["---:"] * (len(_COLUMNS) - 2)]]
    lines += [[show(row) for show in _COLUMNS.values()] for row in rows]
    side, rate = rows[0]["img_size"], median(row["gemm_gflops"] for row in rows)
    return "\n".join(
        [
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            f"One image of {side} x {side}, float32, evaluation; medians of {result['repeats']} rounds. In brackets: "
            f"the ratio to `{result['against']}`, for the latency ± half its interquartile range. GEMM rate: "
            f"{rate:.0f} GFLOP/s.",
            "",
            f"Printed by `{result['command']}`, commit {result['commit']}, on {result['machine']}, "
            f"torch {result['torch']}.",
        ]
    )


def to_csv(result: Mapping[str, Any]) -> str:
    """Return a line per row, each with where it comes from."""
    source = {name: value for name, value in result.items() if name != "rows"}
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*result["rows"][0], *source], lineterminator="\n")
    table.writeheader()
    table.writerows({**row, **source} for row in result["rows"])
    return text.getvalue().rstrip("\n")


def to_json(result: Mapping[str, Any]) -> str:
    """Return everything."""
    return json.dumps(result, indent=2)


FORMATS: dict[str, Callable[[Mapping[str, Any]], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}


def split_readme(path: Path) -> tuple[str, str]:
    """Return what stands before and after the place of the table, markers included.

    Raises:
        InputError: the file cannot be read, or does not hold each marker once and in order.
    """
    try:
        text = path.read_bytes().decode("utf-8")  # as it is, line ends included
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a Markdown file to --readme") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or BEGIN in rest or END in before + after:
        raise InputError(
            f"{path} does not hold the lines {BEGIN} and {END} once each, in this order; add them where the table goes"
        )
    return before + begin, end + after


def update_readme(path: Path, table: str) -> None:
    """Replace what stands between the markers by ``table``."""
    before, after = split_readme(path)
    edit_text(path, f"{before}\n{table}\n{after}")
