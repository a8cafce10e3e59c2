"""Switches and places of the bundles' configurations."""

from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from kvseg_monai.errors import InputError

_FLAGS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}


PLACES = ("bundle_root", "dataset_dir", "base_dir", "output_dir", "prediction_dir", "ckpt_dir", "ckpt_path")


def as_flag(value: Any, name: str) -> bool:
    """Return a switch's value: true or false, yes or no, on or off, 1 or 0, in capitals or not.

    On MONAI's command line ``--amp False`` arrives as False, but ``--amp false`` as the text "false", which Python
    takes for true; ``--amp 0`` as a number.

    Raises:
        InputError: when it is none of these.
    """
    flag = _FLAGS.get(str(value).lower())
    if flag is None:
        raise InputError(f"--{name} is {value!r}; it must be true or false (or yes or no, on or off, 1 or 0)")
    return flag


def as_count(value: Any, name: str) -> int | None:
    """Return a number of things, None for None.

    Raises:
        InputError: when it is no whole number from 1 on.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise InputError(f"--{name} is {value!r}; it must be a whole number from 1 on")


def takes(config: ConfigParser, name: str, *, only: str = "") -> bool:
    """Return whether a configuration has a key, or a component to which it would be an argument.

    Args:
        config: the configuration.
        name: the key.
        only: what the name of such a component must begin with.
    """
    parent, _ = ReferenceResolver.split_id(name, last=True)
    component = config.get(parent) if parent and parent.startswith(only) else None
    return name in config or (isinstance(component, dict) and "_target_" in component)
