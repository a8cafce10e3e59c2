"""Make a phantom in the raw UW-Madison layout: ``python -m data_prep.phantom --target DIR --scans N``.

A PHANTOM is computed, no patient was scanned. It lets a new user run the whole path with no download, through the same
preparation (:mod:`data_prep.uw_madison.source`) that reads the real data.
"""

import argparse
import csv
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from data_prep.common.parallel import as_done
from data_prep.common.phantom_marker import NOTE, NOTE_FILE, is_phantom
from data_prep.phantom.anatomy import LENGTH, make_body, make_organs, plane_at
from data_prep.phantom.signal import draw, make_scanner
from data_prep.uw_madison.rle import encode
from data_prep.uw_madison.table import CLASSES, COLUMNS
from kvseg_monai.errors import InputError
from kvseg_monai.utils.program import program
from kvseg_monai.utils.records import RECORD, digest_of, record, recorded

SIZES = ((266, 266, "1.50"), (360, 310, "1.50"), (276, 276, "1.63"), (234, 234, "1.50"))  # width, height, mm
MAX_SLICES = 9999  # the slice number has four digits


@dataclass(frozen=True)
class Plan:
    """One scan to draw."""

    case: int
    day: int
    width: int
    height: int
    spacing: str  # mm, as in the file name
    slices: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the scan, as in ``case3_day1``."""
        return f"case{self.case}_day{self.day}"


def plan_scans(scans: int, *, slices: int = 144, seed: int = 0) -> list[Plan]:
    """Return the scans to draw: the four sizes in turn, every third case scanned on two days.

    Days are 1 and 2: no scan that is known to be bad in the real data has one of these, so none is left out here.
    """
    cases = [(case, day) for case in range(1, scans + 1) for day in ((1, 2) if case % 3 == 0 else (1,))]
    return [
        Plan(case, day, *SIZES[index % len(SIZES)], slices, seed) for index, (case, day) in enumerate(cases[:scans])
    ]


def draw_scan(plan: Plan) -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
    """Yield number (from 1), picture (uint16) and organ masks (bool), all (height, width), of each slice.

    The body depends on the case and the organs on the day, so two days of a case are one patient. Fewer slices sample
    the same length of body more coarsely.
    """
    body = make_body(np.random.default_rng([plan.seed, plan.case]))
    rng = np.random.default_rng([plan.seed, plan.case, plan.day])
    organs, scanner = make_organs(body, rng), make_scanner(rng)
    for index in range(plan.slices):
        plane = plane_at(
            body,
            (index + 0.5) / plan.slices * LENGTH,
            width=plan.width,
            height=plan.height,
            spacing=float(plan.spacing),
        )
        yield index + 1, *draw(body, organs, scanner, plane, rng)


def write_scan(plan: Plan, folder: Path) -> list[tuple[str, str, str]]:
    """Write the slices of one scan under ``folder`` and return its rows of ``train.csv``."""
    place = folder / "train" / f"case{plan.case}" / plan.name / "scans"
    place.mkdir(parents=True)
    note = PngInfo()
    note.add_text("Comment", "PHANTOM: computed image, no patient was scanned")
    rows = []
    for number, picture, masks in draw_scan(plan):
        name = f"slice_{number:04d}_{plan.width}_{plan.height}_{plan.spacing}_{plan.spacing}.png"
        Image.fromarray(picture).save(place / name, pnginfo=note, compress_level=1)
        rows += [(f"{plan.name}_slice_{number:04d}", organ, encode(masks[organ])) for organ in CLASSES]
    return rows


def write_phantom(
    target: Path, *, scans: int, seed: int = 0, slices: int = 144, workers: int = 1, overwrite: bool = False
) -> None:
    """Write a phantom of ``scans`` scans to ``target``, which appears complete or not at all.

    With ``overwrite`` a phantom there is replaced once the new one is whole, if every file in the folder is one that we
    wrote, and as we wrote it.

    Raises:
        InputError: for numbers out of range, and for a target that is not empty, or holds anything but a phantom.
    """
    for option, value, most in (
        ("--scans", scans, 10**6),
        ("--slices", slices, MAX_SLICES),
        ("--workers", workers, 999),
    ):
        if not 1 <= value <= most:
            raise InputError(f"{option} is {value}; it must be from 1 to {most}")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or above")
    _check_target(target, overwrite=overwrite)
    target = Path(os.path.realpath(target))
    draft = target.parent / f".{target.name}.{os.getpid()}.part"
    draft.mkdir(parents=True)
    try:
        rows = _write_scans(plan_scans(scans, slices=slices, seed=seed), draft, workers)
        _write_table(draft / "train.csv", rows)
        (draft / NOTE_FILE).write_text(NOTE, encoding="utf-8")
        record(draft, sorted(_files(draft)))
        _check_target(target, overwrite=overwrite)  # again: drawing takes a while
        _take_place(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # made above, by this run


def _take_place(draft: Path, target: Path) -> None:
    """Give ``draft`` the name ``target``; what has it, empty or a phantom of ours, goes last."""
    if not target.exists():
        draft.rename(target)
        return
    earlier = draft.with_suffix(".earlier")
    target.rename(earlier)
    try:
        draft.rename(target)
    except BaseException:
        earlier.rename(target)
        raise
    for name in {*recorded(earlier), RECORD} & set(_files(earlier)):
        (earlier / name).unlink()
    for folder, _, _ in os.walk(earlier, topdown=False):
        os.rmdir(folder)  # which raises OSError where a file came in since


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not is_phantom(target):
        raise InputError(f"--target {target} holds files that are not a phantom; give a new or empty folder")
    if not overwrite:
        raise InputError(f"--target {target} already holds a phantom; give a new folder, or add --overwrite")
    if foreign := _foreign(target):
        raise InputError(
            f"--target {target} holds {foreign}, which is not as the phantom was written (by its {RECORD}, which older "
            "versions did not write); only a phantom alone is replaced: move the file away, or give a new folder"
        )


def _foreign(folder: Path) -> str | None:
    """Return the path below ``folder`` of the first file or folder that is not of the phantom, or was changed."""
    known = recorded(folder)
    parents = {parent.as_posix() for name in known for parent in Path(name).parents}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            return name
        if path.is_dir() and name not in parents:
            return name
        as_written = name in known and path.is_file() and digest_of(path) in known[name]
        if not path.is_dir() and name != RECORD and not as_written:
            return name
    return None


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _write_scans(plans: list[Plan], folder: Path, workers: int) -> list[tuple[str, str, str]]:
    rows: dict[int, list[tuple[str, str, str]]] = {}
    with tqdm(total=len(plans), desc="phantom", unit="scan") as progress:
        for index, scan_rows in as_done(partial(write_scan, folder=folder), plans, workers=workers):
            rows[index] = scan_rows
            progress.update()
    return [row for index in sorted(rows) for row in rows[index]]


def _write_table(path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and write the phantom."""
    parser = argparse.ArgumentParser(
        prog=program("data_prep.phantom"), description="Make a PHANTOM (computed MR-like slices) in the raw layout."
    )
    add = parser.add_argument
    add("--target", type=Path, required=True, help="folder to write: new or empty")
    add("--scans", type=int, required=True, help="number of scans; every third case gets two")
    add("--seed", type=int, default=0, help="the same seed gives the same files (default: %(default)s)")
    add("--slices", type=int, default=144, help="per scan; fewer sample the body more coarsely (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core, %(default)s)")
    add("--overwrite", action="store_true", help="replace a phantom that --target holds, and nothing else")
    options = vars(parser.parse_args(arguments))
    try:
        write_phantom(**options)
    except OSError as error:
        raise InputError(
            f"{error.filename or options['target']} failed: {error.strerror}; correct that, run again"
        ) from error
    print(f"wrote a PHANTOM of {options['scans']} scans to {options['target']}: computed images, NOT patients")
    return 0
