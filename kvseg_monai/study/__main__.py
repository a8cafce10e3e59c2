"""Command line of the study."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from kvseg_monai import study, utils  # whose parts are loaded when they are used: --help needs no torch
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.utils.program import program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study, or compare its arms; return the exit code."""
    parser = argparse.ArgumentParser(prog=program("kvseg_monai.study"), description="Matched arms, honest statistics.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the arms that are not finished")
    run.set_defaults(main=run_arms)
    run.add_argument("--arms", action="append", default=[], metavar="GLOB", help="only these, such as 'setr-kv-*'")
    run.add_argument("--shard", default="", metavar="I/N", help="every N-th arm from the I-th on (torchrun sets it)")
    run.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="arms at once, which share CPU or GPU (default: 1)"
    )
    run.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU, where there is one)")
    run.add_argument("--redo", action="store_true", help="make arms of another configuration again")
    run.add_argument("--dataset_dir", metavar="DIR", help="folder with a datalist.json (default: the study's)")
    report = commands.add_parser("report", help="compare the finished arms")
    report.set_defaults(main=report_arms)
    report.add_argument("--html", metavar="FILE", help="the page to write (default: report.html in the output folder)")
    for command in (run, report):
        command.add_argument("study", metavar="STUDY.yaml")
        command.add_argument("--output_dir", metavar="DIR", help="where the arms are (default: the study's)")
        command.add_argument("--split", metavar="FILE", help="who is in which section (default: the study's)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    return options.main(options)


def run_arms(options: argparse.Namespace) -> int:
    """Make the chosen arms of a study."""
    places = {"dataset_dir": options.dataset_dir, "output_dir": options.output_dir, "split": options.split}
    read = study.read_study(options.study, **places)
    if read.dataset_dir is None:
        raise InputError(f"{options.study} has no 'dataset_dir'; add it, relative to the file, or give --dataset_dir")
    of_torchrun = (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    shard = parse_shard(options.shard) if options.shard else of_torchrun
    arms = study.select(read.arms, options.arms, shard)
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; it must be 1 or more")
    device = options.device or study.choose_device(int(os.environ.get("LOCAL_RANK", shard[0])))
    utils.use_device(device)
    return study.run_study(read, arms, device=device, redo=options.redo, jobs=options.jobs)


def report_arms(options: argparse.Namespace) -> int:
    """Compare the finished arms of a study."""
    read = study.read_study(options.study, output_dir=options.output_dir, split=options.split)
    for path in study.write_report(read, file=options.study, page=options.html):
        print(f"wrote {path}")
    return 0


def parse_shard(text: str) -> tuple[int, int]:
    """Turn ``i/n`` into (i - 1, n).

    Raises:
        InputError: for anything else.
    """
    first, _, count = text.partition("/")
    if first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count):
        return int(first) - 1, int(count)
    raise InputError(f"--shard is {text!r}; it must be i/n with i from 1 to n, such as 1/2 and 2/2")


if __name__ == "__main__":
    run_command(main)
