"""Parts that every room uses: files, geometry, labels, weights, flags, and what a run was."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
