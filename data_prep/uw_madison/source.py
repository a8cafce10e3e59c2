"""Prepare the UW-Madison GI Tract data: ``python -m data_prep.uw_madison --source RAW --target DIR``.

``DIR`` then holds ``images/`` and ``labels/`` (one NIfTI volume per scan), ``datalist.json`` (split by case) and
``summary.json``. A second run goes on where the first stopped. Where organs overlap, stomach wins over small bowel and
small bowel wins over large bowel; the summary counts the pixels.
"""

import argparse
import sys
from pathlib import Path

from data_prep.common.files import fingerprint, system_errors_as_input_errors
from data_prep.common.phantom_marker import NOTICE as PHANTOM_NOTICE
from data_prep.common.phantom_marker import is_phantom
from data_prep.common.preparation import add_options, check_options, convert_all, refuse_shared, write_split
from data_prep.common.target import opened_target
from data_prep.uw_madison.layout import BAD_SCANS, locate, read_scan, scan_folders
from data_prep.uw_madison.scan import OVERLAP_RULE, convert_scan
from data_prep.uw_madison.summary import print_summary, summarise, write_summary
from data_prep.uw_madison.table import LABELS, read_table
from kvseg_monai.errors import InputError
from kvseg_monai.utils.overlap import refuse_overlap

TOOL = "data_prep.uw_madison"


def prepare(
    source: Path,
    target: Path,
    *,
    include_bad_scans: bool = False,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
) -> dict:
    """Convert every scan under ``source`` and return the summary that is also written to ``target``.

    File names and ``train.csv`` are checked for all scans first, and a mistake there stops the run before anything is
    written. A scan with a damaged image is left out instead, and listed under ``failed`` in the summary; where none
    is left, no ``datalist.json`` is written.

    Raises:
        InputError: for such a mistake, for wrong numbers, and for a target that holds something else.
    """
    check_options(validation_fraction=validation_fraction, test_fraction=test_fraction, workers=workers)
    refuse_overlap(sources={"source": source}, targets={"target": target})
    cases, table_file = locate(source)
    mark = fingerprint(table_file.read_bytes())
    table = read_table(table_file)
    folders = scan_folders(cases)
    excluded = [folder.name for folder in folders if folder.name in BAD_SCANS and not include_bad_scans]
    scans = [read_scan(folder, table) for folder in folders if folder.name not in excluded]
    if not scans:
        raise InputError(
            f"{cases} holds only known bad scans ({', '.join(excluded)}); add --include-bad-scans to use them"
        )
    refuse_shared((scan.patient, file) for scan in scans for file in scan.files)
    names = [scan.name for scan in scans]
    with opened_target(target, tool=TOOL, source_fingerprint=mark, names=names, overwrite=overwrite) as folder:
        records, failed, reused = convert_all(scans, folder, convert_scan, workers=workers)
        summary = summarise(records, failed=failed, excluded=excluded, reused=reused)
        summary["rows_without_scan"] = sorted(set(table) - {scan_folder.name for scan_folder in folders})
        phantom = is_phantom(table_file.parent)
        summary["split"] = write_split(
            records,
            folder,
            name="PHANTOM in the layout of UW-Madison GI Tract" if phantom else "UW-Madison GI Tract",
            labels=LABELS,
            split={"validation_fraction": validation_fraction, "test_fraction": test_fraction, "seed": seed},
            notice=PHANTOM_NOTICE if phantom else None,
        )
        write_summary(folder, {"tool": TOOL, "source_fingerprint": mark, "complete": not failed, **summary})
    return summary


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, prepare, print the summary; 1 if a scan had to be left out."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.uw_madison",
        description=f"Turn the raw UW-Madison GI Tract data into NIfTI volumes and a datalist.json. "
        f"Overlap rule: {OVERLAP_RULE}.",
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder that holds train.csv and the folder train")
    add("--target", type=Path, required=True, help="folder to write into: new, empty, or a run to go on with")
    add("--include-bad-scans", action="store_true", help=f"also use the {len(BAD_SCANS)} scans known to be bad")
    add_options(parser, unit="cases")
    options = vars(parser.parse_args(arguments))
    with system_errors_as_input_errors(options["target"]):
        summary = prepare(**options)
    print_summary(summary, options["target"], file=sys.stdout)
    return 1 if summary["failed"] else 0
