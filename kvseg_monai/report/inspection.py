"""Inspection of a trained network's attention in one slice: from a place in each structure, key bias, symmetry.

Shapes: (H, W) is what the network sees at once, a slice's (X, Y) on its canvas; places are fractions of it.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from nibabel.affines import voxel_sizes
from scipy import ndimage
from torch import Tensor, nn

from kvseg_monai.blocks.recording import AttentionLayer, record_attention
from kvseg_monai.bundle.contents import build_network, read_json
from kvseg_monai.bundle.find import INFERENCE, find_bundle
from kvseg_monai.bundle.overrides import apply_overrides, apply_settings
from kvseg_monai.errors import InputError
from kvseg_monai.report import slices
from kvseg_monai.report.readers import locate, rank_cases
from kvseg_monai.utils.flags import PLACES
from kvseg_monai.utils.weights import load_weights

MAX_PLACES = 3  # structures whose attention is shown, the largest first
CONFIGS = ("inference", "evaluate", "train")


@dataclass(frozen=True)
class InspectionRequest:
    """What to inspect: a bundle's folder or configuration, its weights, a case and a slice, counted from 1 at the feet.

    ``case`` None is the median case, ``slice`` None its slice with the most label; ``overrides`` are the training's.
    """

    bundle: str
    weights: str
    case: str | None = None
    slice: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """The network's input, output and attention: image (H, W), predicted classes (H, W), layers."""

    case: str
    slice: int
    slices: int
    plane: str
    image: np.ndarray
    classes: np.ndarray
    aspect: float
    layers: list[AttentionLayer]
    network: nn.Module
    channels: int
    kind: str


def inspect_attention(request: InspectionRequest, metrics: Mapping[str, Any], evaluation: Path) -> Inspection:
    """Run the network on the slice and return what its attention layers computed.

    Raises:
        InputError: the bundle or weights do not fit or are missing, the case is unknown, its image or label is not
            there, the slice is out of range or holds no body, or the network has no attention of this package.
    """
    if not Path(request.weights).is_file():
        raise InputError(f"--weights {request.weights} is missing; give the trained weights, such as models/model.pt")
    config = open_config(request.bundle, request.overrides, weights=request.weights)
    network, _, _ = build_network(config)
    load_weights(network, request.weights)
    case = choose_case(metrics, request.case)
    paths = {key: locate(case.get(key), evaluation) for key in ("image", "label")}
    try:
        slice_axis = config.get_parsed_content("slice_axis") if "slice_axis" in config else "axial"
        number, shown = _choose_slice(request.slice, case["case"], slice_axis=slice_axis, **paths)
    except slices.PictureError as note:
        raise InputError(f"case {case['case']}: {str(note).rstrip('.')}; restore it, or leave --bundle out") from None
    volume = config.get_parsed_content("preprocessing")({key: path for key, path in paths.items() if path})["image"]
    index = _index_in(volume, shown.affine, number, case["case"])
    window = _fullest_window(network, config.get_parsed_content("inferer"), volume[..., index : index + 1])
    layers, scores = record_attention(network, window)
    if not layers:
        raise InputError(f"the network {type(network).__name__} has no kvseg_monai.Attention; leave --bundle out")
    sizes = voxel_sizes(np.asarray(volume.affine))
    return Inspection(
        case=case["case"],
        slice=number,
        slices=shown.voxels.shape[2],
        plane=shown.plane,
        image=window[0, window.shape[1] // 2].numpy(),  # of several channels the slice itself is in the middle
        classes=scores[0].argmax(0).numpy(),
        aspect=float(sizes[1] / sizes[0]),
        layers=layers,
        network=network,
        channels=window.shape[1],
        kind=str(config.get("network_def").get("attention", "own")),
    )


def open_config(bundle: str, overrides: Mapping[str, Any], *, weights: str) -> ConfigParser:
    """Return the configuration of the network: the bundle's ``inference.json``, or the file given, with overrides.

    What is not overridden is as the weights carry it.

    Raises:
        InputError: there is none, or an override is unknown to all of the bundle's configurations.
    """
    path = Path(bundle)
    path = path if path.is_file() else find_bundle(bundle, needs=[INFERENCE]) / INFERENCE
    config = ConfigParser(read_json(path))
    others = [path.with_name(f"{name}.json") for name in CONFIGS]
    known = [ConfigParser(read_json(other)) for other in others if other.is_file() and other != path]
    apply_settings(weights, [config])
    apply_overrides({name: value for name, value in overrides.items() if name not in PLACES}, [config, *known])
    return config


def choose_case(metrics: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    """Return the case of a name; None means the median one, or the first where no Dice is defined."""
    if name is None:
        ranked = rank_cases(metrics)
        return next((ranked[place] for place in ("Median", "Best", "Only") if place in ranked), metrics["cases"][0])
    named = {case["case"]: case for case in metrics["cases"]}
    if name not in named:
        near = ", ".join(difflib.get_close_matches(name, named, 3, 0))
        raise InputError(
            f"--case is {name}, which was not scored; give one of the {len(named)} that were, such as {near}"
        )
    return named[name]


def _choose_slice(
    number: int | None, case: str, *, slice_axis: str, image: str | None, label: str | None
) -> tuple[int, slices.Volume]:
    """Return the slice's number, and the volume that it is of."""
    volume = slices.read_volume(image, role="image", slice_axis=slice_axis)
    depth = volume.voxels.shape[2]
    if number is None:
        number = slices.fullest_slice(slices.read_volume(label, role="label", slice_axis=volume.plane).voxels) + 1
    if not 1 <= number <= depth:
        first = {"axial": "at the feet", "coronal": "at the front", "sagittal": "at the left"}[volume.plane]
        raise InputError(f"--slice is {number}; {case} has slices 1 ({first}) to {depth}")
    return number, volume


def _index_in(volume: Any, affine: np.ndarray, number: int, case: str) -> int:
    """Return where a slice of the file is in what the network sees, which is cropped to the body."""
    place = np.linalg.inv(np.asarray(volume.affine)) @ affine @ [0, 0, number - 1, 1]
    index = round(float(place[2]))
    if not 0 <= index < volume.shape[-1]:
        first = number - index
        raise InputError(
            f"--slice is {number}, where {case} shows no body, so the network does not see it; give one from {first} "
            f"to {first + volume.shape[-1] - 1}"
        )
    return index


@torch.no_grad()
def _fullest_window(network: nn.Module, inferer: Any, volume: Tensor) -> Tensor:
    """Return what the network sees of the slice (C, X, Y, 1), (1, C, H, W): of tiles the one with most structure."""
    windows: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: windows.extend(inputs[0]))
    inferer(torch.as_tensor(volume)[None].float(), network)
    hook.remove()
    return max((window[None] for window in windows), key=lambda window: int(network(window).argmax(1).gt(0).sum()))


def places_of(inspection: Inspection, class_names: Sequence[str]) -> Iterator[tuple[str, int, tuple[float, float]]]:
    """Yield name, index and place of the largest predicted structures; the middle of the image where there is none.

    The place is the one deepest inside the structure's largest part: the centre of a ring would lie outside.
    """
    areas = [np.count_nonzero(inspection.classes == index + 1) for index in range(len(class_names))]
    order = [index for index in np.argsort(areas)[::-1] if areas[index]][:MAX_PLACES]
    for index in order:
        parts, count = ndimage.label(inspection.classes == index + 1)
        largest = 1 + int(np.argmax(ndimage.sum_labels(parts > 0, parts, range(1, count + 1))))
        depth = ndimage.distance_transform_edt(np.pad(parts == largest, 1))[1:-1, 1:-1]
        deepest = np.unravel_index(depth.argmax(), depth.shape)
        yield class_names[index], int(index), tuple((at + 0.5) / n for at, n in zip(deepest, depth.shape, strict=True))
    if not order:
        yield "", -1, (0.5, 0.5)


def shown_layers(layers: Sequence[AttentionLayer]) -> list[int]:
    """Return the indices of the first, the middle and the last layer."""
    return sorted({0, len(layers) // 2, len(layers) - 1})


def share_within(weights: Tensor, mask: np.ndarray) -> tuple[float, float]:
    """Return the share of attention (H', W') that lies within a mask (H, W), and the share of the image that it is."""
    covered = F.adaptive_avg_pool2d(
        torch.from_numpy(mask.astype(np.float32))[None], (weights.shape[0], weights.shape[1])
    )[0]
    return float((weights * covered).sum()), float(covered.mean())
