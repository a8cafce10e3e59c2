"""Weights on disk: loaded strictly, saved whole."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write, set_aside, write_bytes
from kvseg_monai.utils.records import digest_of
from kvseg_monai.utils.safetensors_file import SUFFIX, as_safetensors, beside
from kvseg_monai.utils.weights_file import checksum_beside, non_finite, read_weights

logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, path: str | Path, *, device: torch.device | str = "cpu") -> Mapping[str, Any]:
    """Load a state dict strictly: every weight must be there, fit, and be as it was written.

    Returns:
        all that the file holds; the ``last.ckpt`` of a training has more than weights.

    Raises:
        InputError: when the file is missing, damaged or unreadable, holds NaN, or belongs to another network, size or
            attention kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"the weights {path} are missing, and nothing is predicted with random ones: train first "
            "(configs/train.json), or give a file of trained weights (--ckpt_path, or --weights to start from them)"
        )
    content = read_weights(path, device=device)
    state = content.get("network", content) if isinstance(content, Mapping) else {}
    _refuse_misfits(path, network.state_dict(), state)
    network.load_state_dict(state)
    logger.info("weights loaded from %s", path)
    return content


def _refuse_misfits(path: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    shapes = [name for name in wanted if name in found and wanted[name].shape != getattr(found[name], "shape", None)]
    if missing or unknown or shapes:
        examples = ", ".join((missing + unknown + shapes)[:3])
        raise InputError(
            f"{path} holds the weights of another network: {len(missing)} weights are missing, {len(unknown)} unknown "
            f"and {len(shapes)} of another shape (as {examples}); use the bundle that they were trained with, and the "
            "same --network_def#attention, size, decoder and --image_size"
        )


def save_whole(state: Mapping[str, Any], path: Path, *, settings: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Save a state dict, and beside a ``.pt`` file of weights the same as safetensors.

    A reader, or a run after a crash, never meets half a file.

    Args:
        state: name -> tensor.
        path: the file.
        settings: for the header of the safetensors, see :mod:`kvseg_monai.utils.settings`.

    Raises:
        InputError: when it holds NaN or an infinite number.
    """
    if bad := next(non_finite(state), None):
        raise InputError(
            f"{path} is not written, since {bad} became NaN or infinite; what was saved before stays: lower "
            "--learning_rate, or give --precision fp32"
        )
    if path.suffix == SUFFIX:
        write_bytes(path, as_safetensors(state, settings=settings), keep=True)
        return
    with atomic_write(path, keep=True) as temporary:
        torch.save(state, temporary)
        set_checksum_aside(path)
        digest = digest_of(temporary)
    if path.suffix == ".pt":
        write_bytes(beside(path), as_safetensors(state, pt_sha256=digest, settings=settings), keep=True)


def set_checksum_aside(weights: Path) -> None:
    """Rename the sha256 of weights that are about to be replaced, if there is one, to a name with its date."""
    checksum = checksum_beside(weights)
    if os.path.lexists(checksum):
        set_aside(checksum)
