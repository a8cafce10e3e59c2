"""Command line of an evaluation's page."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from kvseg_monai.bundle.overrides import parse_with_overrides
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.report.evaluation import build_report
from kvseg_monai.report.inspection import InspectionRequest
from kvseg_monai.utils.program import program


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, write the page, print its path."""
    parser = argparse.ArgumentParser(
        prog=program("kvseg_monai.report"),
        description="Make one HTML page of an evaluation.",
        epilog="With --bundle, any other option is an override, as in monai.bundle run: --network_def#size tiny. Give "
        "those that the weights were trained with.",
        allow_abbrev=False,
    )
    parser.add_argument("--evaluation", required=True, metavar="DIR", help="folder with metrics.json")
    parser.add_argument("--training", metavar="DIR", help="folder with TensorBoard event files")
    parser.add_argument("--predictions", metavar="DIR", help="folder with <case>_seg.nii.gz (default: --evaluation)")
    parser.add_argument("--target", required=True, metavar="FILE", help="HTML file to write")
    parser.add_argument("--title", default="Segmentation report", help="heading of the page")
    parser.add_argument("--notice", metavar="TEXT", help="warning about the data, shown in a banner")
    maps = parser.add_argument_group("attention maps")
    maps.add_argument("--bundle", metavar="DIR", help="the bundle that was scored: folder, name, or its inference.json")
    maps.add_argument("--weights", metavar="FILE", help="its trained weights, .pt or .safetensors")
    maps.add_argument("--case", metavar="NAME", help="whose slice is shown (default: the median case)")
    first = "counted from 1 at the feet, of sagittal slices at the left, of coronal ones at the front"
    maps.add_argument("--slice", type=int, metavar="N", help=f"{first} (default: the one with most label)")
    options = vars(parse_with_overrides(parser, sys.argv[1:] if arguments is None else arguments))
    inspected = {name: options.pop(name) for name in ("bundle", "weights", "case", "slice", "overrides")}
    print(f"wrote {build_report(**options, attention=_inspection_request(inspected))}")


def _inspection_request(options: dict[str, Any]) -> InspectionRequest | None:
    """Return what to show attention maps of, None where they are not asked for.

    Raises:
        InputError: part of the options is given, or an option is unknown.
    """
    if options["bundle"] and options["weights"]:
        return InspectionRequest(**options)
    for name in ("bundle", "weights", "case", "slice"):
        if options[name] is not None:
            raise InputError(f"--{name} is for attention maps, which need both --bundle and --weights; give both")
    for name in options["overrides"]:
        raise InputError(f"--{name} is unknown; --help lists the options (overrides are taken beside --bundle)")
    return None


if __name__ == "__main__":
    run_command(main)
