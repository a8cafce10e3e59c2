"""Plots of a study, each an inline picture: differences, patients in pairs, learning curves, cost beside accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kvseg_monai.blocks import ATTENTION_KINDS
from kvseg_monai.report.figures import GREY, INK, LEGEND, WIDTH, as_source, shorten, tidy

# Dark enough for thin lines on white, distinct for the colour-blind; the reference is ink.
KIND_COLOURS = ("#0072b2", "#d55e00", "#00855f", "#a8497f", "#7a5c00", "#55606a")
KIND_MARKERS = "osD^vPX"
NET_MARKERS = "os^DvP"
BAND = "#dcebf1"

Points = Sequence[tuple[int, float]]


def style_of(kind: str, reference: str) -> dict[str, Any]:
    """Return the colour and marker of an attention kind, the same in every plot."""
    others = [name for name in ATTENTION_KINDS if name != reference]
    if kind == reference:
        return {"color": INK, "marker": KIND_MARKERS[0]}
    index = others.index(kind) if kind in others else len(others)
    return {"color": KIND_COLOURS[index % len(KIND_COLOURS)], "marker": KIND_MARKERS[(index + 1) % len(KIND_MARKERS)]}


def draw_differences(rows: Sequence[Mapping[str, Any]], *, higher_is_better: bool) -> str:
    """Draw one row per net and kind: mean difference to the reference, interval, the margin as a band, the verdict."""
    reference, margin = rows[0]["reference"], rows[0]["margin"]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    if not math.isnan(margin):
        axes.axvspan(-margin, margin, color=BAND, label=f"margin ±{margin:g}")
        figure.legend(loc="outside upper right", **LEGEND)
    axes.axvline(0, color=GREY, linewidth=1)
    for y, row in enumerate(reversed(rows)):
        style = style_of(row["attention"], reference)
        axes.plot([row["low"], row["high"]], [y, y], color=style["color"], linewidth=2, solid_capstyle="butt")
        axes.plot(row["difference"], y, markersize=7, markeredgecolor="white", **style)
    labels = [f"{row['net']} {row['attention']}\n{row['verdict'].split(' at ')[0]}" for row in reversed(rows)]
    axes.set(yticks=range(len(rows)), yticklabels=labels, ylim=(-0.6, len(rows) - 0.4))
    left, right = (reference, "kind") if higher_is_better else ("kind", reference)
    axes.set_xlabel(f"← {left} better{10 * ' '}{right} better →")
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    tidy(axes, grid="x")
    return as_source(figure)


def draw_pairs(scores: Mapping[str, np.ndarray], patients: Sequence[str], *, reference: str, title: str) -> str:
    """Draw one row per patient, the best of the reference on top: a dot per kind, joined by a line.

    Args:
        scores: kind -> (P,), means over the seeds.
        patients: their names, in the same order.
        reference: the kind that the others are compared with.
        title: of the horizontal axis.
    """
    order = np.argsort(np.nan_to_num(scores.get(reference, next(iter(scores.values()))), nan=-1.0), kind="stable")
    figure = Figure(figsize=(WIDTH, 1.0 + 0.22 * len(patients)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(patients))
    table = np.array(list(scores.values()))[:, order]
    with np.errstate(all="ignore"):
        axes.hlines(rows, np.nanmin(table, 0), np.nanmax(table, 0), color="#b8c2cc", linewidth=1.2, zorder=1)
    for kind, values in scores.items():
        style = style_of(kind, reference)
        if kind == reference:  # a ring, so that nothing hides it
            ring: dict[str, Any] = {
                "s": 52,
                "facecolors": "none",
                "edgecolors": style["color"],
                "linewidths": 1.3,
                "zorder": 4,
            }
            axes.scatter(values[order], rows, marker=style["marker"], **ring)
        else:
            axes.scatter(values[order], rows, s=26, edgecolors="white", linewidths=0.5, zorder=3, **style)
    axes.set(yticks=rows, yticklabels=[shorten(patients[i]) for i in order], ylim=(-0.7, len(patients) - 0.3))
    axes.set_xlabel(title)
    _legend(figure, scores, reference)
    tidy(axes, grid="both")
    return as_source(figure)


def draw_learning(curves: Mapping[str, Sequence[Points]], *, reference: str, title: str) -> str:
    """Draw the validation score over the epochs: each seed a thin line, the mean over the seeds a thick one.

    Args:
        curves: kind -> a curve per seed.
        reference: the kind that the others are compared with.
        title: of the vertical axis.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    for kind, of_seeds in curves.items():
        colour = style_of(kind, reference)["color"]
        for points in of_seeds:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.45)
        shared = sorted(set.intersection(*({epoch for epoch, _ in points} for points in of_seeds)))
        means = [np.mean([dict(points)[epoch] for points in of_seeds]) for epoch in shared]
        axes.plot(shared, means, color=colour, linewidth=2.2, marker="." * (len(shared) < 4))
    axes.set(xlabel="epoch", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, curves, reference, dots=False)
    tidy(axes, grid="y")
    return as_source(figure)


def draw_cost(points: Sequence[Mapping[str, Any]], *, reference: str, title: str) -> str:
    """Score beside parameters: shape is the net, colour the kind, the bar the standard deviation over the seeds.

    Args:
        points: each with ``net``, ``attention``, ``parameters``, ``score`` and ``spread``.
        reference: the kind that the others are compared with.
        title: of the vertical axis.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    nets = list(dict.fromkeys(point["net"] for point in points))
    for point in points:
        colour = style_of(point["attention"], reference)["color"]
        marker = NET_MARKERS[nets.index(point["net"]) % len(NET_MARKERS)]
        place = (point["parameters"] / 1e6, point["score"])
        axes.errorbar(*place, yerr=point["spread"], color=colour, marker=marker, markersize=8, markeredgecolor="white")
    axes.set(xlabel="parameters, million", ylabel=title)
    axes.margins(x=0.08)
    dots = [_dot(NET_MARKERS[i % len(NET_MARKERS)], "white", INK, net) for i, net in enumerate(nets)]
    kinds = list(dict.fromkeys(point["attention"] for point in points))
    dots += [_dot("s", style_of(kind, reference)["color"], "white", kind) for kind in kinds]
    figure.legend(handles=dots, loc="outside upper center", ncols=4, **LEGEND)
    tidy(axes, grid="both")
    return as_source(figure)


def _dot(marker: str, face: str, edge: str, label: str) -> Line2D:
    shape: dict[str, Any] = {"linestyle": "none", "marker": marker, "markersize": 7}
    return Line2D([], [], markerfacecolor=face, markeredgecolor=edge, label=label, **shape)


def _legend(figure: Figure, kinds: Mapping[str, Any], reference: str, *, dots: bool = True) -> None:
    marks = []
    for kind in kinds:
        style = style_of(kind, reference)
        shape: dict[str, Any] = {"marker": style["marker"], "linestyle": "none"} if dots else {"linewidth": 2.2}
        shape |= {"markerfacecolor": "none"} if kind == reference else {}
        marks.append(Line2D([], [], color=style["color"], label=kind, **shape))
    figure.legend(handles=marks, loc="outside upper center", ncols=6, **LEGEND)
