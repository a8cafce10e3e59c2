"""``kvseg bundles``: what comes with the package, listed or copied."""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.bundle.find import METADATA, SOURCES, find_bundle, shipped_bundles, shipped_folder
from kvseg_monai.errors import InputError
from kvseg_monai.utils.program import program

OTHERS = ("examples", "templates")  # folders beside the bundles


def copy_bundle(name: str, folder: str | Path) -> Path:
    """Copy a bundle, without weights and results, into ``folder``; return the copy.

    Args:
        name: a bundle's name or folder (see :func:`~kvseg_monai.bundle.find.find_bundle`), or one of :data:`OTHERS`.
        folder: made where it is missing.

    Raises:
        InputError: there is no such bundle, or a file or folder of its name in ``folder`` already.
    """
    other = name in OTHERS
    source = shipped_folder() / name if other else find_bundle(name)
    target = Path(folder) / source.name
    if os.path.lexists(target):
        raise InputError(f"{target} is there already; name another folder")
    files = [path for path in source.rglob("*") if path.is_file()] if other else [source / path for path in SOURCES]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    try:
        for file in files:
            copy = partial / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def list_bundles() -> str:
    """Return a line for each bundle of the package, and where they are."""
    bundles = shipped_bundles()
    titles = {name: json.loads((path / METADATA).read_text(encoding="utf-8"))["name"] for name, path in bundles.items()}
    examples = [path.stem for path in sorted(shipped_folder().glob("examples/*.json"))]
    lines = [f"{name:<{max(map(len, titles))}}  {title}" for name, title in titles.items()]
    return "\n".join([*lines, f"overlays: {', '.join(examples)}", f"in {shipped_folder()}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog=program("kvseg_monai bundles"), description="List the bundles, or copy one.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list them; what happens without a command too")
    copy = commands.add_parser("copy", help="copy one, without weights and results, to change it")
    copy.add_argument("name", metavar="NAME", help=f"of a bundle, as setr_kv; or {', '.join(OTHERS)}")
    copy.add_argument("folder", metavar="DIR", help="the copy becomes a folder in it")
    options = parser.parse_args(arguments)
    if options.command == "copy":
        print(f"wrote {copy_bundle(options.name, options.folder)}")
    else:
        print(list_bundles())
