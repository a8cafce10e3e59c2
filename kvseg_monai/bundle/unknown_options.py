"""Refuse options that no configuration knows, which MONAI takes in and ignores: ``--max_epoch 2``, ``--spacng``."""

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pydoc import locate
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.utils.nearest import did_you_mean
from kvseg_monai.utils.run_options import RUN_OPTIONS, config_files, read_mapping, run_options

TARGET = "_target_"
# What MONAI itself puts into a configuration: always, and under --tracking.
META = "_meta_"
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir")

Arguments = Callable[[str], Collection[str] | None]


def refuse_unknown_options() -> None:
    """Check the command line of this process; the configurations' ``initialize`` does it, before any work.

    Does nothing where the process's main program is not ``python -m monai.bundle run``.

    Raises:
        InputError: see :func:`check_options`; an argument that a component's signature lacks is refused as well.
    """
    options = run_options(sys.argv)
    if options is not None:
        check_options(options, arguments_of=signature_of)


def check_options(options: Mapping[str, Any], *, arguments_of: Arguments = lambda target: None) -> None:
    """Raise for an option that is neither MONAI's own nor in one of the configurations.

    Args:
        options: name -> value, ``config_file`` among them.
        arguments_of: returns the names of the arguments of a ``_target_``, None where they are not known.

    Raises:
        InputError: naming the option, the configurations and the nearest name that exists.
    """
    files = config_files(options)
    known = lay_over(read_mapping(file) for file in files)
    if options.get("tracking"):
        known = {**dict.fromkeys(TRACKING), **known}
    for name, value in options.items():
        if name in RUN_OPTIONS or name.startswith(META):
            continue
        remedy = find_mistake(split_id(name), known, arguments_of)
        if remedy is not None:
            where = " and ".join(file.name for file in files)
            raise InputError(f"--{name} is no option of {where}; {remedy or 'its docs/README.md lists the options'}")
        _put(known, name, value)


def find_mistake(parts: Sequence[str], known: Mapping[str, Any], arguments_of: Arguments) -> str | None:
    """Return a remedy for an option that nothing would take, "" where nothing is like it; None where it is taken.

    Args:
        parts: the option's name, such as ``["network_def", "size"]``.
        known: the configuration.
        arguments_of: see :func:`check_options`.
    """
    place: Any = known
    in_component = False
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        names = _names_in(place)
        if names is None:
            return _remedy_below(place, parts, depth)
        if part not in names:
            more = _names_beside(place, part, arguments_of, in_component=in_component) if last else ()
            if more is None or part in more:
                return None
            form = "--" + "#".join([*parts[:depth], "{}", *parts[depth + 1 :]])
            return did_you_mean(part, {*names, *more}, form=form) or _found_deeper(part, known if not depth else {})
        in_component = in_component or TARGET in names
        place = place[part if isinstance(place, dict) else int(part)]
    return None


def _names_in(place: Any) -> Collection[str] | None:
    if isinstance(place, list):
        return [str(index) for index in range(len(place))]
    return place if isinstance(place, dict) else None


def _names_beside(place: Any, part: str, arguments_of: Arguments, *, in_component: bool) -> Collection[str] | None:
    """Return what else a place takes: a component the arguments of its signature, below an argument anything (None)."""
    if isinstance(place, list):
        return ()
    if TARGET in place:
        return None if part.startswith("_") else arguments_of(place[TARGET])
    return None if in_component else ()


def _remedy_below(place: Any, parts: Sequence[str], depth: int) -> str:
    referred = re.fullmatch(r"@([\w#:]+)", str(place))
    remedy = f", so give --{'#'.join([referred[1], *parts[depth:]])}" if referred else ", which has no parts"
    return f"{'#'.join(parts[:depth])} is {place!r}{remedy}"


def _found_deeper(part: str, known: Mapping[str, Any]) -> str:
    """Name the sections that have an option of that very name, as ``network_def#size`` for ``size``."""
    found = [f"--{name}#{part}" for name, inner in known.items() if isinstance(inner, dict) and part in inner]
    return f"did you mean {' or '.join(found)}?" if found else ""


def split_id(name: str) -> list[str]:
    """Return the parts of an id, which ``#`` or ``::`` divides."""
    return name.replace("#", "::").split("::")


def lay_over(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return configurations laid over each other, as MONAI does it; ids alone matter here, and torch is not needed."""
    merged: dict[str, Any] = {}
    for content in contents:
        for name, value in content.items():
            _put(merged, name, value)
    return merged


def _put(merged: dict[str, Any], name: str, value: Any) -> None:
    """Set an id, or with a ``+`` add to it; what cannot be set is MONAI's to refuse."""
    *parents, last = split_id(name.removeprefix("+"))
    place: Any = merged
    for part in parents:
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
    earlier = place.get(last) if isinstance(place, dict) else None
    if name.startswith("+") and isinstance(earlier, dict) and isinstance(value, dict):
        earlier.update(value)
    elif name.startswith("+") and isinstance(earlier, list) and isinstance(value, list):
        earlier.extend(value)
    elif isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value


def signature_of(target: str) -> list[str] | None:
    """Return the names of the arguments of a component, None where it takes any or is not found."""
    from monai.bundle.config_item import ComponentLocator, ConfigComponent  # here: this takes seconds

    found = locate(str(ConfigComponent({TARGET: target}, locator=ComponentLocator()).resolve_module_name()))
    try:
        parameters = inspect.signature(found).parameters.values()  # type: ignore[arg-type]  # whatever was named; what has no signature raises
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]
