"""Validation curves of several trainings in one picture and one table.

``python -m kvseg_monai.curves --runs QKV=DIR KV=DIR --target curves.png --csv curves.csv``
"""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.errors import InputError
from kvseg_monai.report.evaluation import CURVE_TITLES
from kvseg_monai.report.figures import draw_runs
from kvseg_monai.utils.files import refuse_foreign, write_bytes, write_text
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.tensorboard import read_scalars

Points = list[tuple[int, float]]


def read_runs(runs: Sequence[str], scalar: str) -> list[tuple[str, Points]]:
    """Read one scalar of each ``NAME=DIR``, a folder searched to any depth for TensorBoard events.

    Returns:
        (name, [(step, value), ...]) per run, in the order given; a name may come several times.

    Raises:
        InputError: a run is not written as NAME=DIR, its folder is missing, or holds no such scalar.
    """
    return [_read(run, scalar) for run in runs]


def _read(run: str, scalar: str) -> tuple[str, Points]:
    name, _, folder = run.partition("=")
    if not (name and folder):
        raise InputError(f"the run {run!r} is not written as NAME=DIR; give a name and the training's output folder")
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder; give the output folder of the training {name!r}")
    scalars = read_scalars(folder)
    if scalar not in scalars:
        found = ", ".join(sorted(scalars)) or "no scalar at all"
        raise InputError(f"{folder} has no {scalar}, but {found}; name one of these with --scalar")
    return name, scalars[scalar]


def as_csv(runs: Sequence[tuple[str, Points]], scalar: str) -> str:
    """Return a row per run and step; ``run`` counts the runs of one name from 1."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "run", "step", scalar))
    seen: Counter[str] = Counter()
    for name, points in runs:
        seen[name] += 1
        rows.writerows((name, seen[name], step, f"{value:.4f}") for step, value in points)
    return text.getvalue()


def _refuse_places(options: argparse.Namespace) -> None:
    """Refuse, before anything is read, where a picture or a table cannot go."""
    sources = {f"runs {name}": folder or None for name, _, folder in (run.partition("=") for run in options.runs)}
    for option, suffix in {"target": ".png", "csv": ".csv"}.items():
        path = getattr(options, option)
        if path is None:
            continue
        if path.suffix.lower() != suffix and not path.is_dir():
            raise InputError(f"--{option} {path} does not end in {suffix}; give a name that does")
        refuse_overlap(sources=sources, targets={option: path})
        refuse_foreign([path])


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a scalar of several trainings, runs of one name (as other seeds) in one colour."""
    parser = argparse.ArgumentParser(prog="python -m kvseg_monai.curves", description=main.__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="NAME=DIR", help="output folders of trainings")
    parser.add_argument("--target", required=True, type=Path, metavar="FILE", help="PNG file to write")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="table to write as well")
    parser.add_argument("--scalar", default="val_mean_dice", help="what is drawn (default: %(default)s)")
    options = parser.parse_args(arguments)
    _refuse_places(options)
    runs = read_runs(options.runs, options.scalar)
    if options.csv:
        write_text(options.csv, as_csv(runs, options.scalar))
    write_bytes(options.target, draw_runs(runs, quantity=CURVE_TITLES.get(options.scalar, options.scalar)))
