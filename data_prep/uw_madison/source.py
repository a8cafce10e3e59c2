"""Prepare the UW-Madison GI Tract data: ``python -m data_prep.uw_madison --source RAW --target DIR``.

``DIR`` then holds ``images/`` and ``labels/`` (one NIfTI volume per scan), ``datalist.json`` (split by case) and
``summary.json``. A second run goes on where the first stopped. Where organs overlap, stomach wins over small bowel and
small bowel wins over large bowel; the summary counts the pixels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.common.files import files_below, fingerprint
from data_prep.common.passed_over import kind_of, remarks_on
from data_prep.common.phantom_marker import NOTICE as PHANTOM_NOTICE
from data_prep.common.phantom_marker import is_phantom
from data_prep.common.preparation import add_options
from data_prep.common.volume_set import VolumeSet, run
from data_prep.uw_madison.layout import BAD_SCANS, Scan, locate, read_scan, scan_folders
from data_prep.uw_madison.scan import OVERLAP_RULE, convert_scan
from data_prep.uw_madison.summary import SLICES
from data_prep.uw_madison.table import LABELS, read_table
from kvseg_monai.errors import InputError
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.program import program

MAX_NAMES = 5


def read_source(source: Path, *, include_bad_scans: bool = False) -> VolumeSet[Any]:
    """Find the scans under ``source`` and their rows in ``train.csv``.

    File names and ``train.csv`` are checked for all scans, and a mistake there stops the run before anything is
    written. A scan with a damaged image is left out later, by its conversion.

    Raises:
        InputError: for such a mistake.
    """
    cases, table_file = locate(source)
    table, mark = read_table(table_file), fingerprint(table_file.read_bytes())
    folders = scan_folders(cases)
    excluded = [folder for folder in folders if folder.name in BAD_SCANS and not include_bad_scans]
    scans = [read_scan(folder, table) for folder in folders if folder not in excluded]
    bad = [folder.name for folder in excluded]
    if not scans:
        raise InputError(f"{cases} holds only known bad scans ({', '.join(bad)}); add --include-bad-scans to use them")
    absent = sorted(set(table) - {folder.name for folder in folders})
    phantom = is_phantom(table_file.parent)
    return VolumeSet(
        "data_prep.uw_madison",
        "PHANTOM in the layout of UW-Madison GI Tract" if phantom else "UW-Madison GI Tract",
        scans,
        convert_scan,
        LABELS,
        remarks=[*_remarks(bad, absent), *_others(cases, scans, [*excluded, table_file])],
        facts={"excluded_bad_scans": bad, "rows_without_scan": absent},
        contents=SLICES,
        unit="case",
        notice=PHANTOM_NOTICE if phantom else None,
        mark=mark,
    )


def _remarks(bad: Sequence[str], absent: Sequence[str]) -> list[str]:
    remarks = [f"left out as known bad (--include-bad-scans uses them): {' '.join(bad)}"] if bad else []
    if absent:
        shown = " ".join(absent[:MAX_NAMES]) + (" ..." if len(absent) > MAX_NAMES else "")
        remarks.append(f"not in the source, though train.csv has rows for them: {len(absent)} scans ({shown})")
    return remarks


def _others(cases: Path, scans: Sequence[Scan], reported: Sequence[Path]) -> list[str]:
    """Count what lies below ``cases`` and is neither a slice nor among or below ``reported``."""
    known = {*reported, *(file for scan in scans for file in scan.slices)}
    others = [path for path in files_below(cases) if path not in known and known.isdisjoint(path.parents)]
    return remarks_on(cases.name, (kind_of(path, path.relative_to(cases).as_posix(), None) for path in others))


def parse(arguments: list[str] | None = None) -> tuple[VolumeSet[Any], Path, dict[str, Any]]:
    """Read the command line, file names and ``train.csv``: what there is, the target, and the options of the split."""
    parser = argparse.ArgumentParser(
        prog=program("data_prep.uw_madison"),
        description=f"Turn the raw UW-Madison GI Tract data into NIfTI volumes and a datalist.json. "
        f"Overlap rule: {OVERLAP_RULE}.",
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder that holds train.csv and the folder train")
    add("--target", type=Path, required=True, help="folder to write into: new, empty, or a run to go on with")
    add("--include-bad-scans", action="store_true", help=f"also use the {len(BAD_SCANS)} scans known to be bad")
    add_options(parser, unit="cases")
    options = vars(parser.parse_args(arguments))
    refuse_overlap(sources={"source": options["source"]}, targets={"target": options["target"]})
    found = read_source(options.pop("source"), include_bad_scans=options.pop("include_bad_scans"))
    return found, options.pop("target"), options


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, prepare, print the summary; return the exit code."""
    return run(*parse(arguments))
