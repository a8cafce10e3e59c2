"""Name the volumes of a DICOM folder by paths, so that whatever passes file names around can pass a DICOM volume.

The path of a volume is that of the folder that was searched, and the volume's name: ``FOLDER/series004-1f2e3d4c5b``. No
such file exists. It resolves to the volume that :func:`list_volumes` found there, in another process by searching anew.

What is at fault, a series with missing slices or a damaged file, has a path too: whoever reads it gets the reason, so
that batch work reports it among its other invalid cases.
"""

import logging
from pathlib import Path

from kvseg_monai.dicom.series import Series, find_series
from kvseg_monai.dicom.skipped import Skipped, sentences
from kvseg_monai.errors import InputError

READ_ELSEWHERE = (".nii", ".nii.gz")

logger = logging.getLogger(__name__)

_listed: dict[Path, dict[str, Series | Skipped]] = {}
_not_dicom: dict[Path, set[str]] = {}


def list_volumes(source: str | Path) -> list[str]:
    """Search ``source``; return the paths of volumes and faults, and log what was found and left out by rule."""
    root = Path(source).resolve()
    found, skipped = find_series(root)
    for series in found:
        notes = f" ({'; '.join(series.notes)})" if series.notes else ""
        logger.info("%s: %d slices, one is %s%s", series.name, series.shape[2], series.frames[0].header.name, notes)
    passed_over = (item for item in skipped if not item.fault and not item.name.endswith(READ_ELSEWHERE))
    for sentence in sentences(passed_over):
        logger.warning("left out: %s", sentence)
    faults = {item.volume or item.name: item for item in skipped if item.fault}
    _listed[root] = {series.name: series for series in found} | faults
    _not_dicom[root] = {item.name for item in skipped if not item.modality and not item.fault}
    return [str(root / name) for name in _listed[root]]


def not_dicom(source: str | Path) -> set[str]:
    """Return the files, by their paths relative to ``source``, that :func:`list_volumes` found to be no DICOM."""
    return _not_dicom[Path(source).resolve()]


def volume_at(path: str | Path) -> Series:
    """Return the volume that a path from :func:`list_volumes`, a DICOM file, or a folder with one volume means.

    Raises:
        InputError: when there is none, more than one, or one that is at fault.
    """
    path = Path(path).resolve()
    if path.exists():
        return _only_volume(path)
    root = path.parent
    if root not in _listed and root.exists():
        list_volumes(root)
    if path.name not in _listed.get(root, {}):
        raise InputError(f"{path} does not exist, nor does {root} hold a DICOM volume of that name; correct the path")
    volume = _listed[root][path.name]
    if isinstance(volume, Skipped):
        raise InputError(f"{root / volume.name}: {volume.reason}")
    return volume


def _only_volume(path: Path) -> Series:
    found, skipped = find_series(path)
    if len(found) > 1:
        names = ", ".join(series.name for series in found[:5])
        raise InputError(f"{path} holds {len(found)} MR volumes ({names}); give {path / found[0].name} or another one")
    if not found:
        reasons = [str(item) for item in skipped if item.fault] or [str(item) for item in skipped] or ["it is empty"]
        raise InputError(f"{path} holds no MR volume ({reasons[0]}); give a NIfTI file or the folder of an MR series")
    return found[0]
