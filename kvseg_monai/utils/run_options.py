"""The command line of ``python -m monai.bundle run``, read as MONAI reads it: by Fire."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from fire.parser import DefaultParseValue, SeparateFlagArgs

from kvseg_monai.errors import InputError

# What monai.bundle.run takes itself, with what it hands on to create_workflow and ConfigWorkflow.
RUN_OPTIONS = (
    *("config_file", "meta_file", "logging_file", "args_file", "run_id", "init_id", "final_id", "tracking"),
    *("workflow_name", "workflow_type", "properties_path"),
)
_FLAG = re.compile("--|-[a-zA-Z]")  # a negative number is a value


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Return name -> value of each option among ``words``.

    A dash in a name is an underscore, ``--name=value`` is ``--name value``, an option without a value is True, and
    one without a value that begins with ``no`` is False under the rest of its name.
    """
    words = SeparateFlagArgs(list(words))[0]
    options: dict[str, Any] = {}
    for word, following in pairwise([*words, "--"]):
        if not is_flag(word):
            continue
        name, equal, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if equal or not is_flag(following):
            options[name] = DefaultParseValue(value if equal else following)
        elif name.startswith("no") and name not in RUN_OPTIONS:
            options[name[2:]] = False
        else:
            options[name] = True
    return options


def is_flag(word: str) -> bool:
    """Return whether Fire takes a word for the name of an option."""
    return bool(_FLAG.match(word))


def is_bundle_run(arguments: Sequence[str]) -> bool:
    """Return whether a process, by its ``sys.argv``, is ``python -m monai.bundle run``."""
    return Path(arguments[0]).parts[-2:] == ("bundle", "__main__.py") and list(arguments[1:2]) == ["run"]


def run_options(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return the options of a process, name -> value, those of its ``--args_file`` included.

    Args:
        arguments: its ``sys.argv``.

    Returns:
        None where the process's main program is not ``python -m monai.bundle run``.

    Raises:
        InputError: the ``args_file`` is not valid JSON or YAML.
    """
    if not is_bundle_run(arguments):
        return None
    options = read_options(arguments[2:])
    defaults = options.get("args_file")
    return {**(read_mapping(defaults) if isinstance(defaults, str) else {}), **options}


def config_files(options: Mapping[str, Any]) -> list[Path]:
    """Return the files that ``--config_file`` names, in the order in which they are laid over each other."""
    files = options.get("config_file", [])
    return [Path(file) for file in ([files] if isinstance(files, str) else files)]


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a configuration, JSON or YAML.

    Raises:
        InputError: the file is missing, or not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; give a configuration, .json or .yaml")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no valid configuration ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no names and values; give a configuration as those in bundles/*/configs")
    return content
