"""Key-Value attention for MRI segmentation, as MONAI bundles.

Rooms and networks are imported on first use, so that the data preparation, which needs no torch, starts at once, and a
configuration that says ``$import kvseg_monai`` reaches all of them. Names of version 0.1.0 are still understood.
"""

from importlib import import_module
from typing import Any

import lazy_loader

from kvseg_monai._version import __version__

_of_today, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _names or name.startswith("_"):
        return _of_today(name)
    return import_module(f"{__name__}.utils.old_names").old_module(f"{__name__}.{name}")
