"""Weights as safetensors: a file that holds tensors and text, and no code, with digests that show damage.

Shapes do not matter here. The file's metadata hold ``sha256``, over names, kinds, shapes and values of the tensors,
``beside``, the sha256 of the ``.pt`` file that was written with it, where there is one, and ``settings``, those of the
training, as JSON, where they are known.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from kvseg_monai._version import __version__
from kvseg_monai.errors import InputError

SUFFIX = ".safetensors"


def beside(weights: Path) -> Path:
    """Return where the safetensors of a ``.pt`` file lie, if there are any."""
    return weights.with_suffix(SUFFIX)


def written_with(weights: Path) -> list[Path]:
    """Return the files that saving weights writes: a ``.pt`` file has safetensors beside it."""
    return [weights, beside(weights)] if weights.suffix == ".pt" else [weights]


def as_safetensors(
    state: Mapping[str, Tensor], *, pt_sha256: str = "", settings: Mapping[str, Any] = MappingProxyType({})
) -> bytes:
    """Return a state dict as the content of a safetensors file.

    Args:
        state: name -> tensor.
        pt_sha256: of the ``.pt`` file of the same weights; "" for none.
        settings: that the weights carry, see :mod:`kvseg_monai.utils.settings`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = {"format": "pt", "kvseg_monai": __version__, "sha256": digest_of_state(tensors), "beside": pt_sha256}
    if settings:
        metadata["settings"] = json.dumps(dict(settings), sort_keys=True)
    return _in_order(save(tensors, metadata))


def _in_order(content: bytes) -> bytes:
    """Return safetensors whose metadata stand in the order of their names: the library has them in any."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def digest_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: of names, kinds, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_safetensors(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read a state dict.

    Raises:
        InputError: the file is damaged, cut off, or no safetensors.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as safetensors ({reason}); copy it again") from error
    if "sha256" in metadata and metadata["sha256"] != digest_of_state(state):
        raise InputError(f"{path} is damaged: its tensors are not those whose sha256 it holds; copy it again")
    return {name: tensor.to(device) for name, tensor in state.items()}


def partner_of(path: Path) -> str:
    """Return the sha256 of the ``.pt`` file that safetensors were written with; "" for none, and where unreadable."""
    return read_metadata(path).get("beside", "")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; {} for none, and where unreadable."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except Exception:
        return {}
