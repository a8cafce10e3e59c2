"""Checks of the command line of ``python -m monai.bundle run``, before anything is built.

MONAI hands each value to Fire, which reads it as Python where it can: ``3`` is a number, ``False`` a truth value,
``[1,2]`` a list, and all else is text. So ``false`` is text, ``1,5`` a pair, and a folder ``2023`` a number. Names
that no configuration has are taken without a word. Here both become a sentence.
"""

import math
import sys
from collections import deque
from collections.abc import Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from kvseg_monai.errors import InputError
from kvseg_monai.utils.flags import PLACES, as_flag, takes
from kvseg_monai.utils.nearest import did_you_mean
from kvseg_monai.utils.run_options import RUN_OPTIONS, config_files, is_bundle_run
from kvseg_monai.utils.settings import default_of


def split_options(arguments: Sequence[str], *, own: Container[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Return the options that are not among ``own``, and before them what is left of a command line without them.

    Args:
        arguments: the command line.
        own: names that are left in it, with their values.

    Returns:
        What is left, and name -> value as they were typed; a switch without a value is "True".
    """
    left, options, words = [], {}, deque(arguments)
    while words:
        word = words.popleft()
        name, equal, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")  # as MONAI's command line does it
        if not name or not word.startswith("--") or name in own:
            left.append(word)
        elif equal:
            options[name] = value
        else:
            options[name] = words.popleft() if words and not words[0].startswith("--") else "True"
    return left, options


def bundle_command(arguments: Sequence[str]) -> tuple[list[Path], dict[str, str]] | None:
    """Return the configuration files and the other options of ``monai.bundle run``, None in any other process.

    Args:
        arguments: ``sys.argv``.
    """
    if not is_bundle_run(arguments):
        return None
    options = split_options(arguments[2:])[1]
    paths = config_files({"config_file": DefaultParseValue(options.pop("config_file", "[]"))})
    if not paths or not all(path.is_file() for path in paths):
        return None
    return paths, options


def check_command_line() -> None:
    """Check the overrides of this process, if it is ``monai.bundle run``; the bundles' ``initialize`` calls it.

    Raises:
        InputError: for a name that the configuration does not have, and a value of another kind than it has there.
    """
    command = bundle_command(sys.argv)
    if command is None:
        return
    config = ConfigParser()
    config.read_config(command[0])
    check_overrides(config, command[1])


def check_overrides(config: ConfigParser, options: Mapping[str, str]) -> None:
    """Check overrides, name -> text as it was typed, against a configuration that has none of them yet.

    Raises:
        InputError: see :func:`check_command_line`.
    """
    for name, text in options.items():
        if name in RUN_OPTIONS:
            continue
        if not takes(config, name):
            if "tracking" not in options and not any(f"@{name}" in other for other in options.values()):
                raise InputError(f"--{name} is no option of this configuration{_hint(name, config)}")
            continue
        value = DefaultParseValue(text)
        if not (isinstance(value, str) and value.startswith(("$", "@", "%"))):  # computed where it is used
            _check_kind(name, text, value, default_of(config.get(name)))


def _hint(name: str, config: ConfigParser) -> str:
    parent, _, last = name.rpartition("#")
    siblings = config.get(parent) if parent else config.get()
    known = siblings if isinstance(siblings, dict) else ()
    return f"; {did_you_mean(last, known, form=f'--{name.removesuffix(last)}{{}}') or 'configs/*.json hold all names'}"


def _check_kind(name: str, text: str, value: Any, default: Any) -> None:
    """Compare a value with what stands in the configuration in its place."""
    computed = isinstance(default, str) and default.startswith(("$", "@", "%"))
    if name in PLACES:
        several = name == "ckpt_path" and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        if not isinstance(value, str) and not several:
            raise InputError(f"--{name} {text} is read as {value!r}, not as a path; write it as ./{text}")
    elif isinstance(default, bool) and "#" in name and isinstance(value, str):
        raise InputError(f"--{name} is {text!r}, which Python takes for true; write True or False")
    elif isinstance(default, bool) and "#" not in name:
        as_flag(value, name)
    elif isinstance(default, Real) and not isinstance(default, bool) and not _is_number(value):
        raise InputError(f"--{name} is {text!r}; it must be a number, as {default}")
    elif isinstance(default, list) and _all_numbers(default) and not _all_numbers(value):
        like = str(default).replace(" ", "")
        raise InputError(f"--{name} is {text!r}; it must be numbers in brackets, as {like}")
    elif isinstance(default, str) and not computed and isinstance(value, Real):
        raise InputError(f"--{name} {text} is read as {value!r}; it must be text, as {default}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _all_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_number, value))
