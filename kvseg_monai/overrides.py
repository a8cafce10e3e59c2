"""Overrides as ``python -m monai.bundle run`` takes them (``--network_def#size tiny``), made part of configurations."""

import argparse
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ReferenceResolver

from kvseg_monai.errors import InputError

PLACES = ("bundle_root", "dataset_dir", "base_dir", "output_dir", "prediction_dir", "ckpt_dir", "ckpt_path")


class _Override(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: str | None = None) -> None:
        # As MONAI's command line does it: a dash in a name is an underscore.
        namespace.overrides[str(option_string)[2:].replace("-", "_")] = value


def parse_with_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line in which every option that ``parser`` does not know is an override.

    Args:
        parser: with the command's own options; abbreviations must be off.
        arguments: the command line; the value of an override is read as ``monai.bundle run`` reads it, by Fire.

    Returns:
        The command's own options, and ``overrides``: name -> value.
    """
    parser.set_defaults(overrides={})
    for option in (argument.partition("=")[0] for argument in arguments):
        if option.startswith("--") and len(option) > 2:
            with contextlib.suppress(argparse.ArgumentError):  # an option of the command's own, or here twice
                hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
                parser.add_argument(option, action=_Override, type=DefaultParseValue, **hidden)
    return parser.parse_args(arguments)


def as_flag(value: bool | str, name: str) -> bool:
    """Return a switch's value; ``--resume true`` on MONAI's command line arrives as the text "true".

    Raises:
        InputError: when it is neither true nor false.
    """
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InputError(f"--{name} is {value!r}; it must be true or false")
    return value


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
        takers = [config for config in configs if _takes(config, name)]
        if not takers:
            raise InputError(
                f"--{name} is in no configuration of the bundle; its docs/README.md lists the options, and "
                "configs/*.json hold all names"
            )
        for config in takers:
            config[name] = value


def _takes(config: ConfigParser, name: str) -> bool:
    parent, _ = ReferenceResolver.split_id(name, last=True)
    component = config.get(parent) if parent and parent.startswith("network_def") else None
    return name in config or (isinstance(component, dict) and "_target_" in component)
