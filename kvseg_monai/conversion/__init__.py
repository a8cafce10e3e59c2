"""Trained and untrained networks of MONAI's turned into their Key-Value form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
