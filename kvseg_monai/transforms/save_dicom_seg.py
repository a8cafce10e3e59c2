"""Label maps as DICOM SEG: coded organs on the grid of the MR series that they were made from, and a summary."""

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from pydicom.sr.coding import Code

from kvseg_monai.data.nifti import VOLUME_SUFFIXES
from kvseg_monai.data.outputs import common_root, label_map_name
from kvseg_monai.dicom import Series
from kvseg_monai.dicom.headers import quiet
from kvseg_monai.dicom.listing import volume_at
from kvseg_monai.dicom.segmentation import Algorithm, make_segmentation, require_highdicom
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write
from kvseg_monai.utils.geometry import onto_grid, spacing_of
from kvseg_monai.utils.labels import ANATOMICAL_STRUCTURE, CODES, read_codes

logger = logging.getLogger(__name__)

UNNAMED = Algorithm()


def write_dicom_seg(
    target: Path,
    label_map: np.ndarray,
    affine: np.ndarray,
    *,
    name: str,
    series: Series,
    class_names: Sequence[str],
    codes: Mapping[str, Code] = CODES,
    algorithm: Algorithm = UNNAMED,
) -> str:
    """Write the label map as DICOM SEG, whole or not at all, and return a summary in words.

    Args:
        target: the file to write.
        label_map: (X, Y, Z), 0 background and ``i + 1`` for ``class_names[i]``, on the series' grid up to the order
            and direction of its axes.
        affine: (4, 4), voxel index to RAS mm.
        name: what the label map is called in errors.
        series: the images that were segmented.
        class_names: the declared classes; those without a voxel are declared as absent.
        codes: by class name; a class without one is coded as an anatomical structure, with a warning.
        algorithm: what made the label map.

    Raises:
        InputError: another grid, undeclared values, or a series that no SEG can refer to.
    """
    highest = len(class_names)
    if not np.isin(label_map, range(highest + 1)).all():
        found = np.setdiff1d(label_map, range(highest + 1))[:5].tolist()
        raise InputError(
            f"{name} holds the values {found}; only 0 to {highest} are declared ({', '.join(class_names)}): name the "
            "classes by --bundle or --labels"
        )
    turned = onto_grid(label_map, affine, shape=series.shape, target=series.affine)
    if turned is None:
        raise InputError(
            f"{name}, {_grid(label_map.shape, affine)}, is not on the grid of {series.name}, "
            f"{_grid(series.shape, series.affine)}, in any order of the axes; give the series that was segmented, and "
            "a map that was not resampled"
        )
    classes = [(class_name, _code(class_name, codes)) for class_name in class_names]
    made = make_segmentation(turned, series, classes=classes, algorithm=algorithm)
    with atomic_write(target) as temporary, quiet():
        made.save_as(temporary)
    return _summary(turned, series, classes)


def _code(class_name: str, codes: Mapping[str, Code]) -> Code:
    if class_name not in codes:
        logger.warning("%s has no code; it is coded as %s", class_name, ANATOMICAL_STRUCTURE.meaning)
    return codes.get(class_name, ANATOMICAL_STRUCTURE)


def _summary(label_map: np.ndarray, series: Series, classes: Sequence[tuple[str, Code]]) -> str:
    millilitre = math.prod(spacing_of(series.affine)) / 1000
    lines = [f"{series.name}, {_grid(series.shape, series.affine)}"]
    for value, (name, code) in enumerate(classes, start=1):
        voxels = np.count_nonzero(label_map == value, axis=(0, 1))
        found = f"{voxels.sum() * millilitre:.1f} ml on {np.count_nonzero(voxels)} slices" if voxels.any() else "absent"
        lines.append(f"  {value} {name} ({code.scheme_designator} {code.value}, {code.meaning}): {found}")
    return "\n".join(lines)


def _grid(shape: Sequence[int], affine: np.ndarray) -> str:
    sides = " x ".join(f"{side:.4g}" for side in spacing_of(affine))
    return f"{' x '.join(map(str, shape))} voxels of {sides} mm"


class SaveDicomSegd(MapTransform):
    """Write each label map, inverted to the grid of its DICOM series, as ``output_dir/<series>.dcm``.

    Args:
        keys: label maps (1, X, Y, Z), with the metadata of the image that they were made from.
        output_dir: where to.
        data: the cases; folders below their common root are kept.
        class_names: see :func:`write_dicom_seg`.
        algorithm_name: the bundle's name in its metadata.
        algorithm_version: likewise.
        codes: JSON file with further codes (see :func:`kvseg_monai.utils.labels.read_codes`); None for none.

    Raises:
        InputError: when highdicom is missing, or the image was no DICOM series; see also :func:`write_dicom_seg`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str,
        data: Sequence[Mapping[str, str]],
        class_names: Sequence[str],
        algorithm_name: str,
        algorithm_version: str,
        codes: str | None = None,
    ) -> None:
        super().__init__(keys)
        require_highdicom()  # now, and not after the network has done its work
        self.output_dir, self.root = Path(output_dir), common_root(data)
        self.class_names = list(class_names)
        self.codes = {**CODES, **read_codes(codes)} if codes else CODES
        self.algorithm = Algorithm(algorithm_name, algorithm_version)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, log the summary, and return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            self._write(data[key])
        return dict(data)

    def _write(self, label_map: Any) -> None:
        path = Path(label_map.meta["filename_or_obj"])
        if path.name.endswith(VOLUME_SUFFIXES):
            raise InputError(
                f"{path} is no DICOM series, which a DICOM SEG must refer to; give a DICOM folder, or leave "
                "dicom_seg.json out"
            )
        summary = write_dicom_seg(
            self.output_dir / label_map_name(path.relative_to(self.root), suffix=".dcm"),
            label_map[0].cpu().numpy(),
            label_map.affine.cpu().numpy(),
            name=f"the label map of {path}",
            series=volume_at(path),
            class_names=self.class_names,
            codes=self.codes,
            algorithm=self.algorithm,
        )
        logger.info("%s", summary)
