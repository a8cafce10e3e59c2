"""The networks, imported on first use."""

from importlib import import_module
from typing import Any

_MODULES = {"CvT": "cvt", "SETR": "setr", "TransUNet": "transunet"}

__all__ = ["CvT", "SETR", "TransUNet"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
