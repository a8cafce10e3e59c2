"""DICOM MR series as volumes: found below a folder, ordered by geometry, loaded with a NIfTI affine; no torch needed.

A series is what one SeriesInstanceUID names, or slices that have one each and are plainly of one series. Where it holds
several volumes (orientations, echoes, phases), each is a :class:`Series` of its own. Nothing that identifies the
patient enters a name, a note or an error, except through the names of the user's own files.
"""

from kvseg_monai.dicom.series import Series, find_series
from kvseg_monai.dicom.skipped import Skipped

__all__ = ["Series", "Skipped", "find_series"]
