"""``kvseg evaluate``, ``infer`` and a single ``train``: MONAI's own runner on a bundle, by the line that is printed."""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from kvseg_monai.bundle.find import EVALUATE, INFERENCE, find_bundle, find_overlay, is_shipped
from kvseg_monai.bundle.unknown_options import check_options
from kvseg_monai.cli import plain
from kvseg_monai.errors import InputError
from kvseg_monai.utils.program import program
from kvseg_monai.utils.run_options import is_flag, read_mapping, read_options
from kvseg_monai.utils.settings import default_of

RUNNER = "monai.bundle"


def runner_words(configuration: str, words: Sequence[str]) -> list[str]:
    """Return what ``python -m monai.bundle`` is to be given.

    Args:
        configuration: path in the bundle, ``configs/train.json``.
        words: the bundle, then options as ``monai.bundle run`` takes them, and ``--overlay`` for configurations to be
            laid over the bundle's.

    Raises:
        InputError: there is no such bundle or overlay, an option is in no configuration, or a word belongs to none.
    """
    bundle, overlays, options = parse_words(configuration, words)
    folder = find_bundle(bundle)
    paths = [folder / configuration, *(find_overlay(overlay, folder) for overlay in overlays)]
    files = [plain.short(path) for path in paths]
    given = read_options(options)
    if "config_file" in given:
        raise InputError(f"--config_file is the bundle's {configuration} here; lay another over it by --overlay")
    check_options({**given, "config_file": files})
    listed = files[0] if len(files) == 1 else json.dumps(files, ensure_ascii=False, separators=(",", ":"))
    named = {"config_file": listed}
    if "bundle_root" not in given:
        named |= {"bundle_root": plain.short(folder), **_places(folder, given)}
    return ["run", *(word for name, value in named.items() for word in (f"--{name}", value)), *options]


def _places(folder: Path, given: dict[str, Any]) -> dict[str, str]:
    """Return where a bundle of the package leaves weights and results: below the working directory."""
    places = {"output_dir": "eval", "ckpt_dir": "models"} if is_shipped(folder) else {}
    return {name: f"{folder.name}/{place}" for name, place in places.items() if name not in given}


def parse_words(configuration: str, words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Return the bundle, the overlays, and the options of MONAI's runner, named with underscores.

    Raises:
        InputError: no bundle is named first, or a word belongs to no option.
    """
    wants_help = {"-h", "--help"} & set(words)
    if not wants_help and (not words or is_flag(words[0])):
        raise InputError(f"name the bundle first, as in: {program('kvseg_monai train')} setr_kv --dataset_dir DATA")
    parser = argparse.ArgumentParser(
        prog=program(f"kvseg_monai {Path(configuration).stem}"),
        usage="%(prog)s BUNDLE [--overlay FILE] [--dataset_dir DIR] [--any_option_of_the_configuration VALUE]",
        description=f"Run MONAI's runner on a bundle's {Path(configuration).name}; the plain line for it is printed.",
        epilog=_list_options(configuration, words) if wants_help else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or its name, such as setr_kv")
    overlay = "configuration to lay over the bundle's: a file, or the name of an example; may be given again"
    parser.add_argument("--overlay", action="append", default=[], metavar="FILE", help=overlay)
    options, others = parser.parse_known_args(words)
    for before, word in pairwise(["", *others]):
        if not is_flag(word) and (not is_flag(before) or "=" in before):
            raise InputError(f"{word!r} belongs to no option; put a value that has spaces in quotes")
    return options.bundle, options.overlay, [_with_underscores(word) for word in others]


def _list_options(configuration: str, words: Sequence[str]) -> str:
    """Return the plain options of a bundle's configuration with their values, for ``--help``."""
    if is_flag(words[0]):
        return "BUNDLE --help lists the bundle's options."
    folder = find_bundle(words[0])
    content = read_mapping(folder / configuration)
    content = {name: default_of(value) for name, value in content.items()}
    options = {name: value for name, value in content.items() if not isinstance(value, dict) and "$" not in str(value)}
    lines = [f"  --{name} {value}" for name, value in options.items()]
    return "\n".join([f"options and their values ({folder / 'docs' / 'README.md'} explains the main ones):", *lines])


def _with_underscores(word: str) -> str:
    name, equal, value = word.partition("=")
    return f"--{name.lstrip('-').replace('-', '_')}{equal}{value}" if is_flag(word) else word


def run_workflow(configuration: str, words: Sequence[str]) -> None:
    """Print the plain line, and become it."""
    line = runner_words(configuration, words)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several
        print(plain.show(RUNNER, line), flush=True)
    plain.become(RUNNER, line)


evaluate = partial(run_workflow, EVALUATE)
infer = partial(run_workflow, INFERENCE)
