"""The section of a page on the attention of a network: maps over a slice, key bias, symmetry of the logits.

Shapes: images and masks are (H, W), the slice's (X, Y); maps are (H', W').
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from kvseg_monai.blocks.recording import AttentionLayer
from kvseg_monai.report.figures import INK, as_source
from kvseg_monai.report.inspection import Inspection, places_of, share_within, shown_layers
from kvseg_monai.report.slices import draw_contour, mark_sides, slice_axes
from kvseg_monai.utils.labels import colour_of

SIZE, DPI = 3.0, 110  # inches and dots per inch of a map
DIMMED = 0.7  # tissue under a map; else white fat would pass for glow
# Yellow differs from grey for the colour-blind too, as do the bias's orange and purple from each other.
GLOW = LinearSegmentedColormap.from_list("glow", ["#ffdd0000", "#ffdd00cc"])
BIAS = "PuOr_r"


def attention_section(inspection: Inspection, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what ``attention.html.j2`` shows of an inspection."""
    shown = shown_layers(inspection.layers)
    biased = [index for index in shown if inspection.layers[index].key_bias() is not None]
    return {
        **{name: getattr(inspection, name) for name in ("case", "slice", "slices", "kind")},
        "places": [_place(inspection, shown, *place) for place in places_of(inspection, class_names)],
        "biases": [_bias(inspection, index) for index in biased],
        "layers": [_row(layer) for layer in inspection.layers],
        "thinned": any(layer.key_stride > 1 for layer in inspection.layers),
    }


def _place(
    inspection: Inspection, shown: Sequence[int], name: str, index: int, place: tuple[float, float]
) -> dict[str, Any]:
    """Return the pictures of one structure: the place itself, and how each shown layer attends from there."""
    colour = colour_of(index) if name else "white"
    mask = inspection.classes == index + 1
    figure, axes = _slice(inspection)
    for other in range(int(inspection.classes.max())):
        draw_contour(axes, inspection.classes == other + 1, colour=colour_of(other))
    _mark(axes, inspection, place, colour)
    mark_sides(axes, inspection.plane)
    return {
        "name": name,
        "colour": colour,
        "src": _source(figure),
        "maps": [_map(inspection, layer, place, mask=mask, colour=colour) for layer in shown],
    }


def _map(
    inspection: Inspection, index: int, place: tuple[float, float], *, mask: np.ndarray, colour: str
) -> dict[str, Any]:
    weights = inspection.layers[index].map_of(place)
    within, covered = share_within(weights, mask)
    even = 1 / weights.numel()
    figure, axes = _slice(inspection, DIMMED)
    _lay_over(axes, inspection, weights.numpy(), cmap=GLOW, vmin=even, vmax=max(float(weights.max()), 2 * even))
    draw_contour(axes, mask, colour="black", width=2.2)
    draw_contour(axes, mask, colour=colour, width=1)
    _mark(axes, inspection, place, colour)
    return {
        "layer": index + 1,
        "src": _source(figure),
        "strongest": float(weights.max()) * weights.numel(),
        "within": within if mask.any() else None,
        "covered": covered,
    }


def _bias(inspection: Inspection, index: int) -> dict[str, Any]:
    bias = inspection.layers[index].key_bias()
    assert bias is not None
    limit = max(float(bias.abs().max()), 1e-6)
    figure, axes = _slice(inspection)
    _lay_over(axes, inspection, bias.numpy(), cmap=BIAS, vmin=-limit, vmax=limit)
    for index_of_class in range(int(inspection.classes.max())):
        draw_contour(axes, inspection.classes == index_of_class + 1, colour=INK)
    return {"layer": index + 1, "src": _source(figure), "least": math.exp(bias.min()), "most": math.exp(bias.max())}


def _row(layer: AttentionLayer) -> dict[str, Any]:
    """Return a layer's row of the table."""
    bias = layer.key_bias()
    return {
        "tokens": layer.grid,
        "keys": layer.key_grid,
        "asymmetry": layer.asymmetry(),
        "pairwise": layer.asymmetry(pairwise=True),
        "key_share": layer.key_share(),
        "temperature": None if bias is None else layer.temperature(),
        "spread": None if bias is None else float(bias.max() - bias.min()),
    }


def _slice(inspection: Inspection, light: float = 1.0) -> tuple[Figure, Axes]:
    return slice_axes(light * np.clip(inspection.image, 0, 1), aspect=inspection.aspect, size=SIZE)


def _lay_over(axes: Axes, inspection: Inspection, grid: np.ndarray, **style: Any) -> None:
    """Stretch a map over the slice, token by token."""
    columns, rows = inspection.image.shape
    axes.imshow(grid.T, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), aspect="auto", interpolation="nearest", **style)


def _mark(axes: Axes, inspection: Inspection, place: tuple[float, float], colour: str) -> None:
    at = [part * side - 0.5 for part, side in zip(place, inspection.image.shape, strict=True)]
    axes.plot(*at, marker="+", markersize=13, markeredgewidth=4.5, color="black")
    axes.plot(*at, marker="+", markersize=12, markeredgewidth=2, color=colour)


def _source(figure: Figure) -> str:
    return as_source(figure, kind="jpeg", dpi=DPI)
