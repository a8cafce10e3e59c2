"""Datalists and volumes: what to read, how it is read, and where results go."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
