"""Inferers: a 2D network over a volume, at a chosen precision."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
