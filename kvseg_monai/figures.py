"""Pictures: scores per patient, contours on a slice, training curves; inline PNGs for a report, or a PNG file.

Shapes: volumes are (X, Y, Z), brought to LPS+ so that an axial slice ``volume[:, :, z].T`` has rows running to the
patient's back and columns to the patient's left, the radiological view from the feet.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, told apart by the colour-blind, bright ones first: they must stand out on grey tissue.
COLOURS = ("#e69f00", "#56b4e9", "#00b37d", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
MARKERS = "osD^vP*"
RUN_COLOURS = ("#22303c", "#0072b2", "#d55e00", "#00b37d", "#cc79a7", "#e69f00", "#56b4e9")  # dark first: on white
GREY = "#5b6670"


class PictureError(Exception):
    """A picture cannot be drawn; the message is the note shown in its place."""


def colour_of(index: int) -> str:
    """Colour of foreground class ``index`` (counted from zero); they repeat after seven."""
    return COLOURS[index % len(COLOURS)]


def load_volume(path: str | Path | None, *, role: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Read a NIfTI volume, turned to LPS+.

    Returns:
        the (X, Y, Z) array and its spacing along X and Y in mm.

    Raises:
        PictureError: there is no such file, it is no NIfTI file, or it is not one 3D volume.
    """
    if path is None or not Path(path).exists():
        raise PictureError(f"The {role} was not found{f' ({Path(path).name})' if path else ''}.")
    try:
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt("LPS")
        )
        image = nib.funcs.squeeze_image(image).as_reoriented(turn)
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel has a dozen kinds for a damaged file; the report must go on
        raise PictureError(f"The {role} could not be read ({Path(path).name}: {type(error).__name__}).") from error
    if data.ndim != 3 or data.dtype.kind not in "buif":
        raise PictureError(f"The {role} is not a single 3D volume of numbers ({Path(path).name}: shape {data.shape}).")
    return data, tuple(float(size) for size in image.header.get_zooms()[:2])


def draw_overlay(*, image: str | None, label: str | None, prediction: str | None, classes: int) -> dict[str, Any]:
    """Draw both contours on the axial slice with the most label (most prediction where there is no label).

    Returns:
        ``src``: a data URI, ``slice``: its number counted from 1 at the feet, ``slices``: how many there are.

    Raises:
        PictureError: a volume is missing or unreadable, or their shapes differ.
    """
    volume, spacing = load_volume(image, role="image")
    masks = {"prediction": load_volume(prediction, role="prediction")[0], "label": load_volume(label, role="label")[0]}
    for role, mask in masks.items():
        if mask.shape != volume.shape:
            raise PictureError(f"The {role} has shape {mask.shape}, the image {volume.shape}: not the same grid.")
    areas = [np.count_nonzero(masks[role], axis=(0, 1)) for role in ("label", "prediction")]
    z = next((int(area.argmax()) for area in areas if area.any()), volume.shape[2] // 2)
    flat = {role: mask[:, :, z].T for role, mask in masks.items()}  # (X, Y) -> rows Y, columns X
    source = _draw_slice(_window(volume)[:, :, z].T, flat, aspect=spacing[1] / spacing[0], classes=classes)
    return {"src": source, "slice": z + 1, "slices": volume.shape[2]}


def draw_patients(patients: Mapping[str, Mapping[str, float | None]], class_names: Sequence[str]) -> str:
    """One row per patient: the Dice of each class as a dot, their mean as a bar; lowest mean at the bottom."""
    means = {p: np.mean([v for v in scores.values() if v is not None] or [math.nan]) for p, scores in patients.items()}
    order = sorted(patients, key=lambda p: (math.isnan(means[p]), -means[p]), reverse=True)
    figure = Figure(figsize=(4.8, 1.0 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, [means[p] for p in order], height=0.62, color="#dfe5ea", label="mean")
    for index, name in enumerate(class_names):
        values = [math.nan if (v := patients[p].get(name)) is None else v for p in order]
        style = {"color": colour_of(index), "marker": MARKERS[index % len(MARKERS)]}
        axes.scatter(
            values, rows, s=26, zorder=3, edgecolors="#22303c", linewidths=0.5, label=name.replace("_", " "), **style
        )
    axes.set(yticks=rows, yticklabels=[_short(p) for p in order], xlim=(0, 1.02), ylim=(-0.7, len(order) - 0.3))
    axes.set_xlabel("Dice")
    figure.legend(loc="outside upper center", ncols=min(4, len(class_names) + 1), frameon=False, fontsize=8.5)
    _tidy(axes, grid="x")
    return _as_source(figure)


def draw_curve(points: Sequence[tuple[int, float]], *, unit: str = "step", colour: str = "#1f6f8b") -> str:
    """One training scalar over its steps, or another unit; a running mean is laid over long, noisy ones."""
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    figure = Figure(figsize=(4.8, 2.5), layout="constrained")
    axes = figure.subplots()
    width = len(values) // 30
    axes.plot(steps, values, color=colour, linewidth=1.6, alpha=0.3 if width > 3 else 1, marker="." * (len(steps) < 40))
    if width > 3:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width // 2 : width // 2 + len(smooth)], smooth, color=colour, linewidth=1.8)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes, grid="y")
    return _as_source(figure)


def draw_runs(runs: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, quantity: str, unit: str = "epoch") -> bytes:
    """One scalar of several runs over their epochs, (name, points) each, as a PNG; runs of one name share a colour."""
    names = list(dict.fromkeys(name for name, _ in runs))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for name, points in runs:
        style = {"color": RUN_COLOURS[names.index(name) % len(RUN_COLOURS)], "marker": "." * (len(points) < 40)}
        axes.plot(*zip(*points, strict=True), linewidth=1.5, label=None if name in labelled else name, **style)
        labelled.add(name)
    axes.set(xlabel=unit, ylabel=quantity)
    axes.yaxis.label.set_color(GREY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8.5)
    _tidy(axes, grid="y")
    return _as_png(figure)


def _draw_slice(grey: np.ndarray, masks: Mapping[str, np.ndarray], *, aspect: float, classes: int) -> str:
    rows, columns = grey.shape
    size = 4.8 / max(columns, rows * aspect)
    figure = Figure(figsize=(columns * size, rows * aspect * size), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect="auto", origin="upper", interpolation="bilinear")
    for index in range(classes):
        for role, style in (("label", (0, (3, 2))), ("prediction", "solid")):
            mask = masks[role] == index + 1
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=colour_of(index), linestyles=[style], linewidths=1.4)
    for x, side in ((0.02, "R"), (0.98, "L")):
        align = "left" if side == "R" else "right"
        axes.text(x, 0.5, side, color="white", transform=axes.transAxes, ha=align, va="center", fontsize=12)
    return _as_source(figure, dpi=130)


def _window(volume: np.ndarray) -> np.ndarray:
    """Grey values of the 1st to 99.5th percentile as 0 to 1; a few bright voxels must not darken the picture."""
    volume = np.nan_to_num(np.asarray(volume, dtype=np.float32))
    low, high = np.percentile(volume, (1, 99.5))
    return np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1)


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


def _tidy(axes: Axes, *, grid: str) -> None:
    axes.grid(axis=grid, color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c2cc")
    axes.tick_params(colors=GREY, labelsize=8.5)
    axes.xaxis.label.set_color(GREY)


def _as_png(figure: Figure, *, dpi: int = 180) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _as_source(figure: Figure, *, dpi: int = 180) -> str:
    """PNG as a data URI, so that the page needs no second file."""
    return f"data:image/png;base64,{base64.b64encode(_as_png(figure, dpi=dpi)).decode()}"
