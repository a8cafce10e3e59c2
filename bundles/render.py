"""Render the bundles from their templates: `python bundles/render.py`, or `--check` to see whether they drifted.

Bundles ship flat JSON because MONAI Label reads one file per task; people read and edit the commented YAML templates.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
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


def drift(name: str, files: dict[str, str]) -> list[str]:
    """Return what in the bundle's folder differs from its templates, weights and results aside."""
    folder = HERE / name
    wrong = [
        path for path, text in files.items() if not (folder / path).is_file() or (folder / path).read_text() != text
    ]
    kept = [path for part in ("configs", "docs") for path in (folder / part).rglob("*") if path.is_file()]
    return wrong + [str(path.relative_to(folder)) for path in kept if str(path.relative_to(folder)) not in files]


def write(name: str, files: dict[str, str]) -> None:
    """Write a bundle's files; configs and docs hold nothing else afterwards."""
    for part in ("configs", "docs"):
        shutil.rmtree(HERE / name / part, ignore_errors=True)
    for path, text in files.items():
        target = HERE / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def main() -> int:
    """Render, or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a bundle differs")
    check = parser.parse_args().check
    drifted = 0
    for name, context in contexts():
        files = render(context)
        if not check:
            write(name, files)
            continue
        for path in drift(name, files):
            drifted += 1
            print(f"bundles/{name}/{path} differs from the templates; run: python bundles/render.py", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
