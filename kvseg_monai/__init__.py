"""Key-Value attention for MRI segmentation, as MONAI bundles.

Rooms and networks are imported on first use, so that the data preparation, which needs no torch, starts at once, and a
configuration that says ``$import kvseg_monai`` reaches all of them.
"""

import lazy_loader

from kvseg_monai._version import __version__

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]
