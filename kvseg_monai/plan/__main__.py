"""Choose settings for a data set, and say why: ``python -m kvseg_monai.plan DATA``."""

import argparse
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kvseg_monai.data.datalist import label_names
from kvseg_monai.data.dataset import cases
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.plan.choose import Choice, choose
from kvseg_monai.plan.file import PLAN, hash_datalist, read_plan, write_plan
from kvseg_monai.plan.measure import MOST, measure
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.program import program

WIDTH = 118


def make_plan(
    dataset_dir: str | Path, target: str | Path | None = None, *, base_dir: str | Path | None = None
) -> tuple[Path, dict[str, Choice]]:
    """Measure the cases of training and validation, write the plan, and return its path and settings.

    Args:
        dataset_dir: the folder with the datalist.
        target: the file to write; None is ``plan.json`` beside the datalist.
        base_dir: the folder that the datalist's paths are relative to; None for ``dataset_dir``.

    Raises:
        InputError: the datalist is missing or wrong, no case can be measured, or something else is in the plan's place.
    """
    path = Path(target) if target is not None else Path(dataset_dir) / PLAN
    listed = partial(cases, dataset_dir, base_dir=base_dir)
    training, validation = listed("training"), listed("validation")
    _refuse(path)
    names = label_names(dataset_dir)
    measured = measure([*training, *validation], num_classes=None if names is None else len(names) + 1)
    settings = choose(measured, volumes=len(training), class_names=names)
    write_plan(path, settings, datalist=hash_datalist(dataset_dir), cases=len(measured))
    return path, settings


def _refuse(path: Path) -> None:
    """Refuse a place where no plan can go, before the work: a plan takes the place of nothing but a plan of ours."""
    if path.suffix != ".json":
        raise InputError(f"--target {path} does not end in .json; name a file such as {PLAN}")
    refuse_foreign([path])
    if os.path.lexists(path):
        try:
            read_plan(path)
        except InputError as error:
            raise InputError(f"{path} is there already and is no plan; give another --target") from error


def as_table(settings: Mapping[str, Choice]) -> str:
    """Return the settings, a line each, with their reasons below one another."""
    values = {name: str(value) for name, (value, _) in settings.items()}
    name_width, value_width = (max(map(len, column)) for column in (values, values.values()))
    begin = name_width + value_width + 4
    return "\n".join(
        textwrap.fill(
            f"{name:<{name_width}}  {values[name]:<{value_width}}  {reason}",
            max(WIDTH, begin + 40),
            subsequent_indent=" " * begin,
            break_on_hyphens=False,
        )
        for name, (_, reason) in settings.items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Plan, and print the settings with their reasons."""
    parser = argparse.ArgumentParser(
        prog=program("kvseg_monai.plan"),
        description="Measure a data set and write the settings that suit it: spacing, canvas, the plane of the slices, "
        "normalisation, batch, steps. Training takes them from there; an option on its command line wins.",
        epilog=f"At most {MOST} cases of training and validation are read; test cases are not.",
        allow_abbrev=False,
    )
    parser.add_argument("dataset_dir", metavar="DATA", help="folder with a datalist.json")
    parser.add_argument("--target", metavar="FILE", help=f"file to write (default: {PLAN} in DATA)")
    parser.add_argument("--base_dir", metavar="DIR", help="what the datalist's paths are relative to (default: DATA)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s")
    path, settings = make_plan(options.dataset_dir, options.target, base_dir=options.base_dir)
    print(as_table(settings))
    line = ["kvseg", "train", "setr_kv", "--dataset_dir", options.dataset_dir]
    line += ["--base_dir", options.base_dir] if options.base_dir else []
    line += ["--plan", str(path)] if options.target else []
    print(f"\nwrote {path}; train any bundle by it:\n    {shlex.join(line)}")


if __name__ == "__main__":
    run_command(main)
