"""Plots: colours, scores per patient, curves; inline pictures for a report, or a PNG file."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kvseg_monai.utils.labels import colour_of

MARKERS = "osD^vP*"
RUN_COLOURS = ("#22303c", "#0072b2", "#d55e00", "#00b37d", "#cc79a7", "#e69f00", "#56b4e9")  # dark first: on white
GREY, INK, ACCENT = "#55606a", "#22303c", "#1f6f8b"
LEGEND = {"frameon": False, "fontsize": 9, "handletextpad": 0.4, "columnspacing": 1.2}
WIDTH = 4.2  # inches; letters of 9 points are then legible on a telephone too


def marker_of(index: int) -> str:
    """Return the shape of a dot of that class, for those who cannot distinguish the colours."""
    return MARKERS[index % len(MARKERS)]


def draw_patients(patients: Mapping[str, Mapping[str, float | None]], class_names: Sequence[str]) -> str:
    """Draw one row per patient: the Dice of each class as a dot, their mean as a bar; lowest mean at the bottom."""
    means = {p: np.mean([v for v in scores.values() if v is not None] or [math.nan]) for p, scores in patients.items()}
    order = sorted(patients, key=lambda p: (math.isnan(means[p]), -means[p]), reverse=True)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.26 * len(order)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, [means[p] for p in order], height=0.62, color="#dfe5ea", label="mean")
    for index, name in enumerate(class_names):
        values = [math.nan if (v := patients[p].get(name)) is None else v for p in order]
        style: dict[str, Any] = {"color": colour_of(index), "marker": marker_of(index), "label": name.replace("_", " ")}
        axes.scatter(values, rows, s=26, zorder=3, edgecolors=INK, linewidths=0.5, **style)
    axes.set(yticks=rows, yticklabels=[shorten(p) for p in order], xlim=(0, 1.02), ylim=(-0.7, len(order) - 0.3))
    axes.set_xlabel("Dice")
    figure.legend(loc="outside upper center", ncols=min(4, len(class_names) + 1), **LEGEND)
    tidy(axes, grid="x")
    return as_source(figure)


def draw_curve(points: Sequence[tuple[int, float]], *, unit: str = "step", colour: str = ACCENT) -> str:
    """Draw one training scalar over its steps, or another unit; a running mean is laid over long, noisy ones."""
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    axes = figure.subplots()
    width = len(values) // 30
    axes.plot(steps, values, color=colour, linewidth=1.6, alpha=0.3 if width > 3 else 1, marker="." * (len(steps) < 40))
    if width > 3:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width // 2 : width // 2 + len(smooth)], smooth, color=colour, linewidth=1.8)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, grid="y")
    return as_source(figure)


def draw_runs(runs: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, quantity: str, unit: str = "epoch") -> bytes:
    """Draw one scalar of several runs over their epochs, (name, points), as a PNG; runs of one name share a colour."""
    names = list(dict.fromkeys(name for name, _ in runs))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for name, points in runs:
        style: dict[str, Any] = {
            "color": RUN_COLOURS[names.index(name) % len(RUN_COLOURS)],
            "marker": "." * (len(points) < 40),
        }
        axes.plot(*zip(*points, strict=True), linewidth=1.5, label=None if name in labelled else name, **style)
        labelled.add(name)
    axes.set(xlabel=unit, ylabel=quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8.5)
    tidy(axes, grid="y")
    return as_bytes(figure)


def shorten(name: str, length: int = 22) -> str:
    """Cut the middle out of a long name."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


def tidy(axes: Axes, *, grid: Literal["both", "x", "y"]) -> None:
    """Give axes the style that all plots of a report share."""
    axes.grid(axis=grid, color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c2cc")
    axes.tick_params(colors=GREY, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=GREY, fontsize=9.5)


def as_bytes(figure: Figure, *, kind: str = "png", dpi: int = 180) -> bytes:
    """Return a picture as the content of a file; of tissue ``jpeg`` makes a far smaller one."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"quality": 88, "subsampling": 0}} if kind == "jpeg" else {}
    figure.savefig(buffer, format=kind, dpi=dpi, facecolor=figure.get_facecolor(), **options)
    return buffer.getvalue()


def as_source(figure: Figure, *, kind: str = "png", dpi: int = 180) -> str:
    """Return a picture as a data URI, so that the page needs no second file."""
    return f"data:image/{kind};base64,{base64.b64encode(as_bytes(figure, kind=kind, dpi=dpi)).decode()}"


def as_file(source: str) -> bytes:
    """Return the file that a data URI of :func:`as_source` holds."""
    return base64.b64decode(source.partition(",")[2])
