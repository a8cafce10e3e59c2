"""MONAI transforms: checks of the input, slices for a 2D network, DICOM SEG as output."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
