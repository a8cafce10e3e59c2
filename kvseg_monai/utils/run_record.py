"""Record of a run: versions, device, network, configuration and time, and no path of the machine."""

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path, PurePath, PureWindowsPath
from types import FrameType, MappingProxyType
from typing import Any, TypeVar

import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from kvseg_monai.utils.flags import PLACES
from kvseg_monai.utils.provenance import machine, versions
from kvseg_monai.utils.settings import NETWORK, is_setting

# What distinguishes one run of a bundle from another, and the id in the configuration that has the last word on it.
SETTINGS = {
    **{name: name for name in ("seed", "section", "folds", "fold", "max_steps", "max_minutes")},
    **{name: name for name in ("steps_per_epoch", "learning_rate", "precision")},
    "max_epochs": "train#trainer#max_epochs",  # MONAI Label and MONAI's federated client set it there
    **{name: name for name in ("volumes_per_batch", "slices_per_volume", "image_size", "spacing", "slice_axis")},
    **{name: name for name in ("normalization", "slice_offsets", "flip", "keep_largest", "network_def")},
    **{name: name for name in ("tta", "save_probabilities")},
}
_CHEAP = ("in_channels",)  # arguments whose expressions may be evaluated here: others may build the network
_FOLDERS = re.compile(r"(?<![\w)])~?/(?:[^/'\"\s][^/'\"]*/)+|\b[A-Za-z]:\\(?:[^\\'\"]+\\)+")
_UNTOLD = (*PLACES, ConfigParser.meta_key)
_Kind = TypeVar("_Kind")


class RunRecord:
    """Record of what a run is, from its start on, and of the time it took so far.

    Args:
        network: that the run trains or uses; None where there is none.
        device: that it computes on.
        configuration: what :func:`describe_configuration` returns of it.
        earlier: the record from before an interruption; its seconds and its start count.
    """

    def __init__(
        self,
        network: nn.Module | None,
        device: torch.device | str = "cpu",
        *,
        configuration: Mapping[str, Any] = MappingProxyType({}),
        earlier: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._start = time.monotonic() - earlier.get("seconds", 0.0)
        self._facts = {
            "started": earlier.get("started", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}"),
            "device": machine(str(device)),
            "versions": versions(),
            **({} if network is None else describe_network(network)),
            **configuration,
        }

    def facts(self) -> dict[str, Any]:
        """Return ``started``, ``seconds``, ``device``, ``versions``, ``network``, ``parameters``, as JSON.

        Of a bundle also what :func:`describe_configuration` returns.
        """
        return {**self._facts, "seconds": round(time.monotonic() - self._start, 3)}


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Return a network's class and the number of its parameters."""
    return {"network": type(network).__name__, "parameters": sum(weight.numel() for weight in network.parameters())}


def describe_configuration(files: Sequence[str]) -> dict[str, Any]:
    """Return what the configuration is that calls this while MONAI resolves it: the bundles' entry ``record``.

    MONAI hands neither the configuration nor its workflow to what it builds from it, so both are looked for among the
    callers. Whoever runs a bundle has them there: MONAI's command line, ``create_workflow``, MONAI Label's training,
    ``MonaiAlgo``, an arm of a study. A bare ``ConfigParser``, which knows no bundle, leaves the ``settings`` alone.

    Args:
        files: the bundle's own files that make up the configuration, by name, in the order of MONAI's command line.

    Returns:
        ``bundle``: the name of its folder, ``configuration``: file name -> hash, ``overrides``: id -> value of what is
        otherwise than in these files, and ``settings``: those of :data:`SETTINGS` that the configuration has, with the
        values that they come to. Places on this machine are left out, of other paths only the last part is recorded,
        and of a list of cases its length.
    """
    parser, workflow = among_callers(ConfigParser), among_callers(ConfigWorkflow)
    if parser is None:
        return {}
    found = {name: _looked_up(parser, place) for name, place in SETTINGS.items() if place in parser}
    settings = {"settings": {name: _as_json(value) for name, value in found.items() if value is not None}}
    if workflow is None or workflow.parser is not parser:
        return settings
    root = Path(workflow.config_root_path).resolve()
    paths = [root / name for name in files]
    if not all(path.is_file() for path in paths):  # a configuration of the user's own
        return {"bundle": root.parent.name, **settings}
    own = ConfigParser(ConfigParser.load_config_files(paths))
    own.resolve_macro_and_relative_ids()  # as was done to the other
    changes = _differences(_as_json(own.config), _as_json(parser.config))
    return {
        "bundle": root.parent.name,
        "configuration": {path.name: hash_file(path) for path in paths},
        "overrides": {name: value for name, value in changes if name.split("#")[0] not in _UNTOLD},
        **settings,
    }


def among_callers(kind: type[_Kind]) -> _Kind | None:
    """Return the object of a class whose method, of all that are being run in this thread, was called last."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if isinstance(owner := frame.f_locals.get("self"), kind):
            return owner
        frame = frame.f_back
    return None


def _looked_up(parser: ConfigParser, place: str) -> Any:
    """Return what stands in a configuration under an id, or under the one that it refers to; of a setting the value."""
    value = parser.get(place)
    if isinstance(value, str) and value.startswith("@"):
        return _looked_up(parser, value[1:])
    if is_setting(value) or (place.split("#")[-1] in _CHEAP and isinstance(value, str) and value.startswith("$")):
        return parser.ref_resolver.get_resolved_content(place)  # it is being resolved: nothing is parsed anew
    if isinstance(value, Mapping) and place == NETWORK:
        return {key: _looked_up(parser, f"{place}#{key}") for key in value}
    return value


def _differences(own: Any, given: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield id and value of what is otherwise in ``given`` than in ``own``, in as small parts as there are."""
    if isinstance(own, dict) and isinstance(given, dict) and own.get("_target_") == given.get("_target_"):
        pairs = [(key, own.get(key), value) for key, value in given.items()]
    elif isinstance(own, list) and isinstance(given, list) and len(own) == len(given) and dict in map(type, own):
        pairs = [(index, *values) for index, values in enumerate(zip(own, given, strict=True))]
    else:
        pairs = []
        if own != given:
            yield name, given
    for key, before, after in pairs:
        yield from _differences(before, after, f"{name}#{key}" if name else str(key))


def _as_json(value: Any) -> Any:
    """Return a value of a configuration as JSON, without folders of this machine and without cases, who are people."""
    if isinstance(value, Mapping):
        return "1 case" if "image" in value else {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        of_cases = any(isinstance(item, Mapping) and "image" in item for item in value)
        return f"{len(value)} cases" if of_cases else [_as_json(item) for item in value]
    if isinstance(value, str | PurePath):
        return _without_folders(str(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value) if isinstance(value, torch.device | torch.dtype) else type(value).__name__


def _without_folders(text: str) -> str:
    """Leave of an absolute path its last part, also where an expression holds it."""
    if Path(text).is_absolute():
        return Path(text).name
    return PureWindowsPath(text).name if PureWindowsPath(text).is_absolute() else _FOLDERS.sub("", text)


def hash_file(path: str | Path) -> str:
    """Return the first 16 digits of a file's sha256."""
    return sha256(Path(path).read_bytes()).hexdigest()[:16]
