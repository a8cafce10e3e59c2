"""Command line: ``python -m kvseg_monai.label --weights FILE --studies DIR``; runs in MONAI Label's environment."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.bundle.overrides import parse_with_overrides
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.label import server
from kvseg_monai.label.install import install_bundle, make_app
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.program import program


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog=program("kvseg_monai.label"),
        description="Put bundles with weights into a MONAI Label server on this machine, and start it.",
        epilog="Any other option is an override, as in monai.bundle run: --network_def#size tiny. Give those that "
        "the weights were trained with, at the first start.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--bundle", nargs="+", default=["setr_kv"], metavar="BUNDLE", help="folders, or names in bundles/ (setr_kv)")
    add("--weights", nargs="+", metavar="FILE", help="trained weights, one for each bundle; for the first start")
    add("--studies", required=True, metavar="DIR", help="folder of NIfTI volumes, or address of a DICOMweb server")
    add("--dataset_dir", metavar="DIR", help="training data: its datalist.json names the classes")
    add("--target", type=Path, default=Path("label"), metavar="DIR", help="folder of the server (label)")
    add("--port", type=int, default=8000, help="8000")
    return parse_with_overrides(parser, arguments)


def prepare(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Check all that was given, install the bundles, and return the app's folder and the models' names."""
    weights = options.weights or [None] * len(options.bundle)
    if len(weights) != len(options.bundle):
        raise InputError(
            f"{len(weights)} --weights for {len(options.bundle)} --bundle; give one for each, in their order"
        )
    studies = None if server.is_dicomweb(options.studies) else options.studies
    sources = {"studies": studies, "dataset_dir": options.dataset_dir}
    refuse_overlap(sources=sources, targets={"target": options.target})
    server.refuse_port(options.port)
    server.refuse_studies(options.studies)
    server.refuse_environment()
    app = make_app(options.target.resolve())
    installed = {"overrides": options.overrides, "dataset_dir": options.dataset_dir}
    return app, [
        install_bundle(app, bundle, weights=file, **installed)
        for bundle, file in zip(options.bundle, weights, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, say what to open, and become the server."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s")
    app, models = prepare(options)
    studies = options.studies if server.is_dicomweb(options.studies) else str(Path(options.studies).resolve())
    print(server.what_to_open(app, studies, models=models, port=options.port), flush=True)
    line = server.command(app, studies, models=models, port=options.port)
    os.execve(line[0], line, server.environment(app.parent, studies))


if __name__ == "__main__":
    run_command(main)
