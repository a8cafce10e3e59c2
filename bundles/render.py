"""Render the bundles from their templates: `python bundles/render.py`, or `--check` to see whether they drifted.

Bundles ship flat JSON because MONAI Label reads one file per task; people read and edit the commented YAML templates.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import kvseg_monai

HERE = Path(__file__).resolve().parent
CONFIGS = ("metadata", "train", "evaluate", "inference", "multi_gpu_train")


def read_pins() -> dict[str, str]:
    """Return name -> version from requirements.txt, the first pin of a name."""
    pins: dict[str, str] = {}
    for line in (HERE.parent / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, equal, version = line.partition("#")[0].partition(";")[0].partition("==")
        if equal:
            pins.setdefault(name.strip(), version.strip())
    return pins


@cache
def count_parameters(network: str, attention: str, size: str) -> int:
    """Return a network's parameters at the bundles' canvas and classes; no weight is made."""
    with torch.device("meta"):
        made = getattr(kvseg_monai, network)(1, 4, 256, attention=attention, size=size)
    return sum(parameter.numel() for parameter in made.parameters())


def contexts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each bundle's name and what its templates may use."""
    table = yaml.safe_load((HERE / "bundles.yaml").read_text(encoding="utf-8"))
    for name, row in table["bundles"].items():
        net = table["networks"][row["network"]]
        yield (
            name,
            {
                "name": name,
                "version": table["version"],
                "labels": table["labels"],
                "pins": read_pins(),
                "net": net,
                "kind": table["attention"][row["attention"]],
                "kinds": table["attention"],
                "bundle": {**row, "options": net["options"]},
                "parameters": {
                    size: {kind: count_parameters(row["network"], kind, size) for kind in ("qkv", row["attention"])}
                    for size in net["sizes"]
                },
            },
        )


def render(context: dict[str, Any]) -> dict[str, str]:
    """Return a bundle's files, relative path -> text."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    files = {
        f"configs/{config}.json": json.dumps(
            yaml.safe_load(environment.get_template(f"{config}.yaml.j2").render(context)), indent=4
        )
        + "\n"
        for config in CONFIGS
    }
    files["docs/README.md"] = environment.get_template("README.md.j2").render(context)
    files["docs/data_license.txt"] = (HERE / "templates" / "data_license.txt").read_text(encoding="utf-8")
    files["configs/logging.conf"] = (HERE / "templates" / "logging.conf").read_text(encoding="utf-8")
    files["LICENSE"] = (HERE.parent / "LICENSE").read_text(encoding="utf-8")
    return files


def drifted(name: str, files: dict[str, str]) -> list[str]:
    """Return which of a bundle's files differ from its templates."""
    there = {path: HERE / name / path for path in files}
    return [path for path, file in there.items() if not file.is_file() or file.read_text("utf-8") != files[path]]


def strays(name: str, files: dict[str, str]) -> list[str]:
    """Return what else lies in configs and docs; weights and results have folders of their own."""
    folder = HERE / name
    there = [path for part in ("configs", "docs") for path in (folder / part).rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in there if str(path.relative_to(folder)) not in files]


def write(name: str, files: dict[str, str]) -> None:
    """Write those of a bundle's files that differ; nothing else in its folder is touched, least of all deleted."""
    for path in drifted(name, files):
        target = HERE / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            sys.exit(f"error: {target} is a link, and where it leads is not ours to write; move the link away")
        target.write_text(files[path], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Render, or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a bundle differs")
    check = parser.parse_args(arguments).check
    wrong = 0
    for name, context in contexts():
        files = render(context)
        if not check:
            write(name, files)
        for path in drifted(name, files):
            wrong += 1
            print(f"bundles/{name}/{path} differs from the templates; run: python bundles/render.py", file=sys.stderr)
        for path in strays(name, files):
            wrong += check
            print(f"bundles/{name}/{path} is in no template; move it away if it is yours", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
