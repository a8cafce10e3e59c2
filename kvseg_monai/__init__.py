"""Key-Value attention for MRI segmentation, as MONAI bundles.

The names below are imported on first use, so that ``kvseg_monai.errors`` and the data preparation, which need no
torch, start at once.
"""

from importlib import import_module
from typing import Any

from kvseg_monai._version import __version__

_LAZY = {"SETR": "kvseg_monai.nets", "Attention": "kvseg_monai.blocks"}

__all__ = ["Attention", "SETR", "__version__"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
