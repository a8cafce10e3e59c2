"""Contents of a packed bundle: configurations that need no overrides, metadata and card that fit, the weights."""

import copy
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from monai.bundle import ConfigParser
from torch import nn

from kvseg_monai._version import __version__
from kvseg_monai.bundle.find import AS_THEY_ARE, CARD, EVALUATE, INFERENCE, METADATA, TRAIN
from kvseg_monai.bundle.overrides import apply_overrides, apply_settings
from kvseg_monai.data.dataset import class_names, notice
from kvseg_monai.errors import InputError
from kvseg_monai.utils.safetensors_file import as_safetensors
from kvseg_monai.utils.settings import CARRIED, NETWORK, carried, default_of
from kvseg_monai.utils.weights import load_weights


def packed_files(
    folder: Path,
    *,
    weights: str | Path,
    overrides: Mapping[str, Any],
    dataset_dir: str | Path | None,
) -> dict[str, bytes]:
    """Return path -> content of a bundle with trained weights; arguments as of :func:`kvseg_monai.bundle.pack.pack`.

    Raises:
        InputError: see there.
    """
    metadata = read_json(folder / METADATA)
    configs = {path: ConfigParser(read_json(folder / path)) for path in (TRAIN, EVALUATE, INFERENCE)}
    apply_settings(weights, configs.values())
    apply_overrides(overrides, configs.values())
    network, image_shape, channels = build_network(configs[INFERENCE])
    load_weights(network, weights)
    labels = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1:]
    warning = None
    if dataset_dir is not None:
        labels, warning = class_names(dataset_dir, labels), notice(dataset_dir)
    _describe(metadata, image_shape=image_shape, channels=channels, classes=["background", *labels])
    metadata["description"] += f" {warning}" if warning else ""
    if isinstance(configs[EVALUATE]["class_names"], dict):
        configs[EVALUATE]["class_names"]["default"] = labels
    else:  # an expression, as in bundles of 0.1.0
        configs[EVALUATE]["class_names"] = f"$kvseg_monai.data.class_names(@dataset_dir, {labels})"
    state = io.BytesIO()
    torch.save(network.state_dict(), state)
    checksum = checksum_line(state.getvalue(), "model.pt")
    facts = {"name": folder.name, "labels": labels, "overrides": overrides, "notice": warning, "version": __version__}
    card = _render_card(**facts, sha256=checksum.split()[0].decode())
    return {
        **{path: (folder / path).read_bytes() for path in AS_THEY_ARE},
        **{path: _as_json(path, config.config) for path, config in configs.items()},
        METADATA: _as_json(METADATA, metadata),
        CARD: card.encode() + (folder / CARD).read_bytes(),
        "models/model.pt": state.getvalue(),
        "models/model.pt.sha256": checksum,
        "models/model.safetensors": as_safetensors(
            network.state_dict(), pt_sha256=checksum.split()[0].decode(), settings=settings_in(configs[INFERENCE])
        ),
    }


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        InputError: when it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct it, or render the bundle again") from error


def checksum_line(data: bytes, name: str) -> bytes:
    """Return the sha256 of ``data`` as ``sha256sum -c`` reads it for a file of that name."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def build_network(config: ConfigParser) -> tuple[nn.Module, list[int], int]:
    """Return the network, the shape (C, H, W) of its image, and the channels that it puts out.

    Raises:
        InputError: an override does not let it be built or run.
    """
    config = ConfigParser(copy.deepcopy(config.config))  # resolving changes a configuration
    try:
        network = config.get_parsed_content("network_def").eval()
        sides = config.get_parsed_content("image_size")
        image_shape = [config.get_parsed_content("network_def#in_channels"), *sides]
        with torch.no_grad():
            scores = network(torch.zeros(1, *image_shape))
    except Exception as error:  # whatever an override breaks
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__:  # MONAI's wrapping
            cause = cause.__cause__
        reason = " ".join(str(cause).split())
        raise InputError(f"the bundle's network cannot be built and run ({reason}); correct the overrides") from error
    return network, image_shape, scores.shape[1]


def settings_in(config: ConfigParser) -> dict[str, Any]:
    """Return the settings that a configuration has, for weights to carry: values alone, of defaults too."""
    settings = {name: default_of(config.get(name)) for name in CARRIED if name in config}
    if isinstance(settings.get(NETWORK), dict):
        settings[NETWORK] = {name: default_of(value) for name, value in settings[NETWORK].items()}
    return carried(settings)


def _describe(metadata: dict[str, Any], *, image_shape: list[int], channels: int, classes: list[str]) -> None:
    """Make the metadata say what the network takes and puts out."""
    if channels != len(classes):
        raise InputError(
            f"the network puts out {channels} channels, but there are {len(classes)} classes ({', '.join(classes)}); "
            "give --dataset_dir the folder of the training data, whose datalist.json names them"
        )
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    names = ["image"] if image_shape[0] == 1 else [f"image, channel {index}" for index in range(image_shape[0])]
    image.update(_channels(names), spatial_shape=image_shape[1:])
    if pred["channel_def"] != _channels(classes)["channel_def"]:
        metadata["task"] = f"Segmentation of {', '.join(classes[1:])} in MRI"
        metadata["label_classes"] = f"one label map: 0 {', then '.join(classes)}"
        metadata["pred_classes"] = f"{channels} channels, one score per class"
    pred.update(_channels(classes), spatial_shape=image_shape[1:])


def _channels(names: list[str]) -> dict[str, Any]:
    return {"num_channels": len(names), "channel_def": {str(index): name for index, name in enumerate(names)}}


def _as_json(path: str, content: dict[str, Any]) -> bytes:
    """Return a configuration as JSON; an absolute path, which would fail on another machine, is refused."""
    text = json.dumps(content, indent=4) + "\n"
    found = re.search(r'"((?:/|~|[A-Za-z]:(?:/|\\\\))[^"]*)"', text)
    if found:
        raise InputError(f"{path} would hold the path {found[1]} of this machine; leave it out, or make it relative")
    return text.encode()


def _render_card(**facts: Any) -> str:
    environment = Environment(loader=PackageLoader("kvseg_monai"), undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("packed.md.j2").render(facts) + "\n\n"
