"""Key-Value attention for MRI segmentation, as MONAI bundles.

The names below are imported on first use, so that ``kvseg_monai.errors`` and the data preparation, which need no
torch, start at once.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from kvseg_monai._version import __version__

_NAMES = {
    "Attention": "kvseg_monai.blocks",
    "CvT": "kvseg_monai.nets",
    "SETR": "kvseg_monai.nets",
    "TransUNet": "kvseg_monai.nets",
}

__all__ = ["Attention", "CvT", "SETR", "TransUNet", "__version__"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    module = f"{__name__}.{name}"  # bundle configurations say `$import kvseg_monai` and then `kvseg_monai.data`
    if not name.startswith("_") and find_spec(module):
        return import_module(module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
