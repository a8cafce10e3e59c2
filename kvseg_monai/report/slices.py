"""Volumes read, and their slices drawn, each an inline picture.

Shapes: volumes are (X, Y, Z), turned as :class:`kvseg_monai.transforms.SliceOrientationd` turns them, so that a slice
``volume[:, :, z].T`` is seen as radiologists do: axial from the feet and coronal from the front, with the patient's
right on the left, and sagittal with the front on the left.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nibabel import orientations
from nibabel.affines import voxel_sizes

from kvseg_monai.data.nifti import read_nifti
from kvseg_monai.report.figures import as_source
from kvseg_monai.transforms.orientation import AXCODES
from kvseg_monai.utils.geometry import PLANES, array_axes, plane_of
from kvseg_monai.utils.labels import colour_of


class PictureError(Exception):
    """A picture cannot be drawn; the message is the note shown in its place."""


@dataclass(frozen=True)
class Volume:
    """A volume, turned so that its slices lie along Z: voxels (X, Y, Z), affine (4, 4), and the slices' plane."""

    voxels: np.ndarray
    affine: np.ndarray
    plane: str


def read_volume(path: str | Path | None, *, role: str, slice_axis: str = "axial") -> Volume:
    """Read a NIfTI volume, turned to a plane (see :func:`kvseg_monai.utils.geometry.plane_of`).

    Raises:
        PictureError: there is no such file, it is no NIfTI file, or it is not one 3D volume.
    """
    if path is None or not Path(path).exists():
        raise PictureError(f"The {role} was not found{f' ({Path(path).name})' if path else ''}.")
    try:
        data, affine = read_nifti(path)
        array_axes(affine)  # fails where there is none along an axis
    except ValueError as error:  # InputError too: the report must go on
        raise PictureError(f"The {role} could not be read ({Path(path).name}: damaged or no NIfTI file).") from error
    if data.ndim != 3 or data.dtype.kind not in "buif":
        raise PictureError(f"The {role} is not a single 3D volume of numbers ({Path(path).name}: shape {data.shape}).")
    plane = PLANES[plane_of(data.shape, affine, slice_axis)]
    towards = orientations.axcodes2ornt(AXCODES[plane])
    turn = orientations.ornt_transform(orientations.io_orientation(affine), towards)
    turned = orientations.apply_orientation(data, turn)
    return Volume(turned, affine @ orientations.inv_ornt_aff(turn, data.shape), plane)


def fullest_slice(*masks: np.ndarray) -> int:
    """Return the slice with the most label, in the first mask that has any; the middle one where none has."""
    areas = (np.count_nonzero(mask, axis=(0, 1)) for mask in masks)
    return next((int(area.argmax()) for area in areas if area.any()), masks[0].shape[2] // 2)


def draw_overlay(
    *,
    image: str | None,
    label: str | None,
    prediction: str | Path | None,
    classes: int,
    slice_axis: str = "axial",
) -> dict[str, Any]:
    """Draw both contours on the slice with the most label (most prediction where there is no label).

    Returns:
        ``src``: a data URI, ``plane``: of the slice, ``slice``: its number counted from 1 at the feet, of a sagittal
        one from 1 at the patient's left and of a coronal one from 1 at the front, ``slices``: how many there are.

    Raises:
        PictureError: a volume is missing or unreadable, or their shapes differ.
    """
    shown = read_volume(image, role="image", slice_axis=slice_axis)
    volume = shown.voxels
    files = {"prediction": prediction, "label": label}
    masks = {role: read_volume(file, role=role, slice_axis=shown.plane).voxels for role, file in files.items()}
    for role, mask in masks.items():
        if mask.shape != volume.shape:
            raise PictureError(f"The {role} has shape {mask.shape}, the image {volume.shape}: not the same grid.")
    z = fullest_slice(masks["label"], masks["prediction"])
    width, height = voxel_sizes(shown.affine)[:2]
    figure, axes = slice_axes(window_grey(volume)[:, :, z], aspect=height / width, size=4.8)
    for index in range(classes):
        for role, style in (("label", (0, (3, 2))), ("prediction", "solid")):
            draw_contour(axes, masks[role][:, :, z] == index + 1, colour=colour_of(index), style=style)
    mark_sides(axes, shown.plane)
    source = as_source(figure, kind="jpeg", dpi=130)
    return {"src": source, "plane": shown.plane, "slice": z + 1, "slices": volume.shape[2]}


def slice_axes(grey: np.ndarray, *, aspect: float, size: float) -> tuple[Figure, Axes]:
    """Show a slice (X, Y) of greys from 0 to 1, without a frame.

    Args:
        grey: the slice.
        aspect: height of a pixel over its width.
        size: the picture's longer side in inches.
    """
    columns, rows = grey.shape
    scale = size / max(columns, rows * aspect)
    figure = Figure(figsize=(columns * scale, rows * aspect * scale), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(grey.T, cmap="gray", vmin=0, vmax=1, aspect="auto", origin="upper", interpolation="bilinear")
    return figure, axes


def draw_contour(axes: Axes, mask: np.ndarray, *, colour: str, style: Any = "solid", width: float = 1.4) -> None:
    """Outline a mask (X, Y), where there is any."""
    if mask.any():
        axes.contour(mask.T, levels=[0.5], colors=colour, linestyles=[style], linewidths=width)


def mark_sides(axes: Axes, plane: str = "axial") -> None:
    """Write R and L at the patient's right and left, on a sagittal slice A and P at the front and the back."""
    left, right = ("A", "P") if plane == "sagittal" else ("R", "L")
    for x, side, align in ((0.02, left, "left"), (0.98, right, "right")):
        axes.text(x, 0.5, side, color="white", transform=axes.transAxes, ha=align, va="center", fontsize=12)


def window_grey(volume: np.ndarray) -> np.ndarray:
    """Return the grey values of the 1st to 99.5th percentile as 0 to 1: a few bright voxels darken nothing."""
    volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
    low, high = np.percentile(volume, (1, 99.5))
    return np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1)
