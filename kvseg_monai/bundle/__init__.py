"""What is done with whole bundles: found, overridden, packed, deployed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
