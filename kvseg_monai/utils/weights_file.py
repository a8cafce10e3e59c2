"""Files of weights, used only when whole: a bit that flipped on the way is an error, and so are NaN and infinity."""

import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import digest_of
from kvseg_monai.utils.safetensors_file import SUFFIX, beside, partner_of, read_safetensors

logger = logging.getLogger(__name__)

CHECKSUM_SUFFIX = ".sha256"  # beside the weights, as `sha256sum` writes it; packed bundles have one
_FOLDER = 0x10  # a part of a zip that is called a folder is read by torch as whatever the memory held


def read_weights(path: str | Path, *, device: torch.device | str = "cpu") -> Any:
    """Read weights: safetensors, or what ``torch.save`` wrote, a state dict or a checkpoint that holds several.

    Where safetensors lie beside a ``.pt`` file and were written with it, they are read instead. Those of another
    ``.pt`` file, which was replaced since, are passed over, and so are damaged ones, with a warning.

    The sha256 of the file that is named is compared where one lies beside it (``model.pt.sha256``). ``torch.load``
    compares no checksum: without a sha256 those are compared that the zip holds of each of its parts.

    Raises:
        InputError: when the file is damaged, does not match its sha256, has no checksum (torch before 1.6),
            or a tensor in it holds NaN or an infinite number.
    """
    path = Path(path)
    checked = matches_checksum(path)
    content = _state_beside(path, device) if path.suffix == ".pt" else None
    if content is None and path.suffix == SUFFIX:
        content = read_safetensors(path, device=device)
    elif content is None:
        content = _unpickled(path, device, checked=checked)
    if bad := next(non_finite(content), None):
        raise InputError(
            f"{path} holds NaN or infinite numbers ({bad}), from which nothing is predicted or trained; give weights "
            "of an earlier epoch, or move the file away and train again with a lower --learning_rate"
        )
    return content


def _state_beside(path: Path, device: torch.device | str) -> dict[str, Tensor] | None:
    """Return the weights of the safetensors that were written with a ``.pt`` file, None where there are none."""
    safetensors = beside(path)
    if not safetensors.is_file():
        return None
    if partner_of(safetensors) != digest_of(path):
        logger.warning("%s was not written with %s, which is read instead", safetensors, path.name)
        return None
    try:
        return read_safetensors(safetensors, device=device)
    except InputError as error:
        logger.warning("%s is read instead: %s", path.name, error)
        return None


def _unpickled(path: Path, device: torch.device | str, *, checked: bool) -> Any:
    checked = checked or _parts_are_whole(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read as weights ({type(error).__name__}); give a whole .pt file") from error
    if not checked:
        raise InputError(
            f"{path} has no checksum (torch before 1.6, or set_crc32_options(False)), so that damage would go "
            f"unnoticed; save it again by torch.save, or put its sha256 beside it as {path.name}{CHECKSUM_SUFFIX}"
        )
    return content


def matches_checksum(path: Path) -> bool:
    """Compare a file, of whatever format, with the sha256 that lies beside it; return whether there is one.

    Raises:
        InputError: when it is that of another file.
    """
    checksum = checksum_beside(path)
    if not checksum.is_file():
        return False
    if checksum.read_text(encoding="utf-8", errors="replace").split()[:1] != [digest_of(path)]:
        raise InputError(
            f"{path} is not the file whose sha256 stands in {checksum}; copy both again, or delete {checksum.name} if "
            "the weights were replaced on purpose"
        )
    return True


def _parts_are_whole(path: Path) -> bool:
    """Compare each part of a zip with its checksum; return False for a file that is no zip or has none."""
    with path.open("rb") as stream:
        if stream.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if not any(part.CRC for part in parts):
                return False
            folders = (part.filename for part in parts if part.external_attr & _FOLDER)
            damaged = archive.testzip() or next(folders, None)
    except Exception as error:  # zipfile has a dozen kinds for a damaged file
        damaged = str(error) or type(error).__name__
    if damaged:
        raise InputError(f"{path} cannot be read as weights: it is damaged or cut off ({damaged}); copy it again")
    return True


def checksum_beside(path: Path) -> Path:
    """Return where the sha256 of a file of weights lies, if there is one."""
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def non_finite(content: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the tensors in a state dict, or in several, that hold NaN or an infinite number."""
    if isinstance(content, Tensor):
        if (content.is_floating_point() or content.is_complex()) and not bool(content.isfinite().all()):
            yield name
    elif isinstance(content, Mapping | list | tuple):
        parts = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, part in parts:
            yield from non_finite(part, f"{name}.{key}" if name else str(key))
