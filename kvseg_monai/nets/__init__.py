"""The networks: SETR, TransUNet and CvT, each with a choice of attention."""

from kvseg_monai.nets.cvt import CvT
from kvseg_monai.nets.setr import SETR
from kvseg_monai.nets.transunet import TransUNet

__all__ = ["CvT", "SETR", "TransUNet"]  # noqa: RUF022
