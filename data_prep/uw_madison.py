"""Prepare the UW-Madison GI Tract data: ``python -m data_prep.uw_madison --source RAW --target DIR``.

``DIR`` then holds ``images/`` and ``labels/`` (one NIfTI volume per scan), ``datalist.json`` (split by case) and
``summary.json``. A second run goes on where the first stopped. Where organs overlap, stomach wins over small bowel and
small bowel wins over large bowel; the summary counts the pixels.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep.datalist import check_fractions, split_patients, write_datalist
from data_prep.files import fingerprint
from data_prep.parallel import as_done
from data_prep.phantom_marker import NOTICE as PHANTOM_NOTICE
from data_prep.phantom_marker import is_phantom
from data_prep.target import DATALIST, check_target, open_target
from data_prep.uwm_scan import OVERLAP_RULE, convert_scan, finished_record, paths
from data_prep.uwm_source import BAD_SCANS, Scan, locate, read_scan, scan_folders
from data_prep.uwm_summary import print_summary, summarise, write_summary
from data_prep.uwm_table import LABELS, read_table
from kvseg_monai.errors import InputError, run_command

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
    check_fractions(validation_fraction, test_fraction)
    if workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")
    cases, table_file = locate(source)
    mark = fingerprint(table_file.read_bytes())
    check_target(target, tool=TOOL, source_fingerprint=mark, overwrite=overwrite)
    table = read_table(table_file)
    folders = scan_folders(cases)
    excluded = [folder.name for folder in folders if folder.name in BAD_SCANS and not include_bad_scans]
    scans = [read_scan(folder, table) for folder in folders if folder.name not in excluded]
    if not scans:
        raise InputError(
            f"{cases} holds only known bad scans ({', '.join(excluded)}); add --include-bad-scans to use them"
        )
    open_target(target, tool=TOOL, source_fingerprint=mark, overwrite=overwrite)

    records, failed, reused = _convert_all(scans, target, workers)
    summary = summarise(records, failed=failed, excluded=excluded, reused=reused)
    summary["rows_without_scan"] = sorted(set(table) - {folder.name for folder in folders})
    if records:
        sections = split_patients(
            (record["patient"] for record in records),
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
        summary["split"] = _write_split(records, target, sections, phantom=is_phantom(table_file.parent))
    else:
        (target / DATALIST).unlink(missing_ok=True)
    write_summary(target, {"tool": TOOL, "source_fingerprint": mark, "complete": not failed, **summary})
    return summary


def _convert_all(scans: list[Scan], target: Path, workers: int) -> tuple[list[dict], dict[str, str], int]:
    """Convert what is not done yet: records in the order of ``scans``, sentence per failed scan, number reused."""
    records = {scan.name: finished_record(scan, target) for scan in scans}
    todo = [scan for scan in scans if records[scan.name] is None]
    failed: dict[str, str] = {}
    with tqdm(total=len(scans), initial=len(scans) - len(todo), desc="scans", unit="scan") as progress:
        for index, outcome in as_done(partial(_attempt, target), todo, workers=workers):
            if isinstance(outcome, dict):
                records[todo[index].name] = outcome
            else:
                failed[todo[index].name] = outcome
            progress.update()
    done = [record for record in records.values() if record is not None]
    return done, dict(sorted(failed.items())), len(scans) - len(todo)


def _attempt(target: Path, scan: Scan) -> dict | str:
    """Record of the scan, or the sentence that says why it was left out."""
    try:
        return convert_scan(scan, target)
    except InputError as error:
        return str(error)


def _write_split(records: list[dict], target: Path, sections: dict[str, str], *, phantom: bool) -> dict[str, list[str]]:
    """Write ``datalist.json`` and return the cases of each section."""
    items = []
    for record in records:
        image, label, _ = (path.relative_to(target).as_posix() for path in paths(record["scan"], target))
        items.append({"image": image, "label": label, "patient": record["patient"]})
    name = "PHANTOM in the layout of UW-Madison GI Tract" if phantom else "UW-Madison GI Tract"
    notice = PHANTOM_NOTICE if phantom else None
    content = write_datalist(target / DATALIST, items, name=name, labels=LABELS, sections=sections, notice=notice)
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    return {section: sorted({item["patient"] for item in entries}) for section, entries in lists.items()}


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
    add("--validation-fraction", type=float, default=0.2, help="share of the cases (default: %(default)s)")
    add("--test-fraction", type=float, default=0.1, help="share of the cases (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    add("--overwrite", action="store_true", help="replace another preparation that --target holds")
    options = vars(parser.parse_args(arguments))
    try:
        summary = prepare(**options)
    except OSError as error:
        raise InputError(
            f"{error.filename or options['target']} failed: {error.strerror}; correct that, run again"
        ) from error
    print_summary(summary, options["target"], file=sys.stdout)
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    run_command(main)
