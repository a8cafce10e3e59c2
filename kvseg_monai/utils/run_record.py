"""Record of a run: versions, device, network, configuration and time, and no path of the machine."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from torch import nn

from kvseg_monai.utils.command_line import bundle_command
from kvseg_monai.utils.flags import PLACES
from kvseg_monai.utils.provenance import machine, versions

# What distinguishes one run of a bundle from another.
SETTINGS = ("seed", "section", "max_epochs", "learning_rate", "image_size", "spacing", "slice_offsets", "network_def")


class RunRecord:
    """Record of what a run is, from its start on, and of the time it took so far.

    Args:
        network: that the run trains or uses; None where there is none.
        device: that it computes on.
        earlier: the record from before an interruption; its seconds and its start count.
    """

    def __init__(
        self,
        network: nn.Module | None,
        device: torch.device | str = "cpu",
        *,
        earlier: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._start = time.monotonic() - earlier.get("seconds", 0.0)
        self._facts = {
            "started": earlier.get("started", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}"),
            "device": machine(str(device)),
            "versions": versions(),
            **({} if network is None else describe_network(network)),
            **bundle_run(sys.argv),
        }

    def facts(self) -> dict[str, Any]:
        """Return ``started``, ``seconds``, ``device``, ``versions``, ``network``, ``parameters``, as JSON.

        Within ``python -m monai.bundle run`` also what :func:`bundle_run` returns.
        """
        return {**self._facts, "seconds": round(time.monotonic() - self._start, 3)}


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Return a network's class and the number of its parameters."""
    return {"network": type(network).__name__, "parameters": sum(weight.numel() for weight in network.parameters())}


def bundle_run(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what ``python -m monai.bundle run`` was given, of its ``sys.argv``; nothing in any other process.

    Returns:
        ``bundle``: the name of its folder, ``configuration``: file name -> hash, ``overrides``: name -> value, without
        those that are places on this machine, and ``settings``: those of :data:`SETTINGS` that the configuration has,
        overrides included.
    """
    command = bundle_command(arguments)
    if command is None:
        return {}
    paths, options = command
    config = ConfigParser()
    config.read_config(paths)
    given = ((name, DefaultParseValue(text)) for name, text in options.items())
    overrides = {name: value for name, value in given if name not in PLACES and name.split("#")[0] in config}
    config.update(overrides)
    return {
        "bundle": paths[0].resolve().parent.parent.name,
        "configuration": {path.name: hash_file(path) for path in paths},
        "overrides": {name: _without_folder(value) for name, value in overrides.items()},
        "settings": {name: config[name] for name in SETTINGS if name in config},
    }


def _without_folder(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folder(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_folder(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def hash_file(path: str | Path) -> str:
    """Return the first 16 digits of a file's sha256."""
    return sha256(Path(path).read_bytes()).hexdigest()[:16]
