"""Checks of a study file: tables are read, names checked, and the nearest allowed one is named."""

import difflib
import json
import pydoc
from collections.abc import Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from kvseg_monai.errors import InputError

SET_BY_STUDY = (
    *("bundle_root", "dataset_dir", "base_dir", "output_dir", "ckpt_dir", "seed", "resume", "section", "device"),
    *("network_def", "network_def#attention", "network_def#out_channels"),
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one table.

    Raises:
        InputError: when it is missing, unreadable, or holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{path} is missing; give the path of a YAML or JSON file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())}); correct it") from None
    if not isinstance(found, dict | None):
        raise InputError(f"{path}: found {found!r}; it must be a table of keys and values")
    return found or {}


def unknown(name: str, allowed: Iterable[str]) -> str:
    """Say that a name is not allowed, which one is nearest to it, and which are."""
    allowed = list(dict.fromkeys(allowed))
    near = difflib.get_close_matches(name, allowed, 1, 0)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"'{name}' is unknown; {meant}Allowed: {', '.join(allowed) or 'nothing'}"


def check_overrides(overrides: Mapping[str, Any], network: Mapping[str, Any] | None, bundle: Path, where: str) -> None:
    """Refuse an override that neither ``train.json`` nor ``evaluate.json`` knows: MONAI takes a misspelt one silently.

    Args:
        overrides: as on the bundle's command line, such as ``network_def#size``.
        network: what takes the place of the bundle's network, None for the bundle's own.
        bundle: the bundle's folder.
        where: begins the message.

    Raises:
        InputError: naming the nearest key that is known.
    """
    configs = [json.loads((bundle / "configs" / f"{name}.json").read_text("utf-8")) for name in ("train", "evaluate")]
    for config in configs:
        config["network_def"] = network or config["network_def"]
    for key in overrides:
        if key in SET_BY_STUDY:
            raise InputError(f"{where}: the study sets {key} itself; leave it out")
        parts = key.split("#")
        for depth, part in enumerate(parts):
            allowed = [name for config in configs for name in _names_below(config, parts[:depth])]
            if part not in allowed and "*" not in allowed:
                raise InputError(f"{where}, {key}: {unknown(part, allowed)}")


def _names_below(node: Any, parents: list[str]) -> list[str]:
    """Return what may follow ``parents``: the keys that are there, and the arguments of a class; "*" for anything."""
    for part in parents:
        node = {str(index): item for index, item in enumerate(node)} if isinstance(node, list) else node
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, list):
        return [str(index) for index in range(len(node))]
    if not isinstance(node, dict) or "_target_" not in node:
        return list(node or ())
    target = pydoc.locate(str(node["_target_"]))
    return [*node, *(signature(target).parameters if callable(target) else "*")]
