"""Key-Value attention for MRI segmentation, as MONAI bundles.

The names below are imported on first use, so that ``kvseg_monai.errors`` and the data preparation, which need no
torch, start at once.
"""

from importlib import import_module
from typing import Any

from kvseg_monai._version import __version__

_NAMES = {"Attention": "kvseg_monai.blocks", "SETR": "kvseg_monai.nets"}
_MODULES = (
    "blocks",
    "checkpoints",
    "convert",
    "data",
    "errors",
    "metrics",
    "nets",
    "report",
    "scoring",
    "training",
    "transforms",
)

__all__ = ["Attention", "SETR", "__version__"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in _MODULES:  # bundle configurations say `$import kvseg_monai` and then `kvseg_monai.data`
        return import_module(f"kvseg_monai.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
