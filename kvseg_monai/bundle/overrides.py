"""Overrides as ``python -m monai.bundle run`` takes them (``--network_def#size tiny``), made part of configurations."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from kvseg_monai.errors import InputError
from kvseg_monai.utils.command_line import split_options
from kvseg_monai.utils.flags import PLACES, takes
from kvseg_monai.utils.settings import NETWORK, is_setting, trained_settings


def parse_with_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line in which every option that ``parser`` does not know is an override.

    Args:
        parser: with the command's own options, each kept under its own name; abbreviations must be off.
        arguments: the command line; the value of an override is read as ``monai.bundle run`` reads it, by Fire.

    Returns:
        The command's own options, and ``overrides``: name -> value.
    """
    known, _ = parser.parse_known_args(arguments)  # where a stranger's value may pass for a word of the command's own
    left, given = split_options(arguments, own=vars(known))
    overrides = {name: DefaultParseValue(value) for name, value in given.items()}
    return parser.parse_args(left, argparse.Namespace(overrides=overrides))


def apply_settings(weights: str | Path, configs: Iterable[ConfigParser]) -> None:
    """Write the settings that weights carry into every configuration, in place.

    Written are those that one of the configurations takes from elsewhere; where none does, as in a packed bundle, the
    values that are there stay.
    """
    configs, settings = list(configs), trained_settings(weights)
    places = [place for config in configs for place in _places(config) if is_setting(config.get(place))]
    for place in dict.fromkeys(places):
        name = place.removeprefix(f"{NETWORK}#")
        for config in configs:
            if name in settings and place in config:
                config[place] = settings[name]


def _places(config: ConfigParser) -> list[str]:
    """Return the ids of a configuration's options and of its network's arguments."""
    network = config.get(NETWORK)
    return [*config.config, *(f"{NETWORK}#{name}" for name in (network if isinstance(network, dict) else ()))]


def apply_overrides(overrides: Mapping[str, Any], configs: Iterable[ConfigParser]) -> None:
    """Write each override into every configuration that has its key, in place.

    ``network_def`` takes arguments that it does not name yet, as ``network_def#patch_size``; whether they exist shows
    when it is built.

    Raises:
        InputError: when no configuration has the key, or it is a place on this machine.
    """
    configs = list(configs)
    for name, value in overrides.items():
        if name in PLACES:
            raise InputError(f"--{name} is a place on this machine and stays out of a bundle that is shared; omit it")
        takers = [config for config in configs if takes(config, name, only="network_def")]
        if not takers:
            raise InputError(
                f"--{name} is in no configuration of the bundle; its docs/README.md lists the options, and "
                "configs/*.json hold all names"
            )
        for config in takers:
            config[name] = value
