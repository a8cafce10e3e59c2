"""The networks."""

from kvseg_monai.nets.setr import SETR

__all__ = ["SETR"]
