"""Places of the bundles' label maps: folders and names as of their images, none made twice unasked."""

import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data.folder_layout import default_name_formatter

from kvseg_monai.data.dataset import Case
from kvseg_monai.data.nifti import without_suffix
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.flags import as_flag

logger = logging.getLogger(__name__)

LABELS, PROBABILITIES = ".nii.gz", "_probabilities.nii.gz"  # suffixes of what is written of a volume


def common_root(data: Sequence[Mapping[str, str]]) -> str:
    """Return the deepest folder that holds all images, so that label maps keep the folders below it; "" for none."""
    return os.path.commonpath([str(Path(case["image"]).parent) for case in data]) if data else ""


def with_own_names(data: Sequence[Case], suffixes: Sequence[str] = (LABELS,)) -> list[Case]:
    """Return the cases as they are, each of which has files of its own.

    ``a.nii`` and ``a.nii.gz`` of one folder have one label map, and where capitals do not count, as in the file systems
    of macOS and Windows, so have ``A.nii`` and ``a.nii``. Another name made for one of them would depend on what else
    is there, and a later run could take the one's label map for the other's.

    Raises:
        InputError: naming two that have one label map.
    """
    root = Path(common_root(data))
    images: dict[Path, str] = {}
    for case in data:
        for suffix in suffixes:
            name = label_map_name(Path(case["image"]).relative_to(root), suffix)
            target = _key(name)
            if target in images:
                raise InputError(
                    f"{images[target]} and {case['image']} would have one label map, {name}; names that differ in "
                    "their endings or capitals alone are one: rename one of the two, or put it into a folder of its own"
                )
            images[target] = case["image"]
    for target, image in images.items():
        for folder in target.parents:
            if folder in images:
                raise InputError(
                    f"the label map of {images[folder]} would have the name of the folder for that of {image}; rename "
                    "the file or the folder"
                )
    return list(data)


def _key(path: Path) -> Path:
    """Return a name as file systems compare it that know neither capitals nor ways to write an accent."""
    return Path(unicodedata.normalize("NFC", str(path)).casefold())


def pending(
    data: Sequence[Case],
    output_dir: str | Path,
    *,
    overwrite: bool | str = False,
    suffix: str = LABELS,
    probabilities: bool | str = False,
) -> list[Case]:
    """Leave out the volumes whose label map is in ``output_dir`` already, and say so.

    Args:
        data: the volumes.
        output_dir: where label maps go.
        overwrite: make them again.
        suffix: of a label map.
        probabilities: whether each volume has a file of probabilities too, without which it is not done.

    Raises:
        InputError: when two volumes have one label map; when one would take the place of its input, or, with
            ``overwrite``, of a file that is not ours or was changed since, as by a person who corrected it; or when
            nothing is left to do.
    """
    root = common_root(data)
    again, todo = as_flag(overwrite, "overwrite"), []
    suffixes = _suffixes(suffix, probabilities)
    for case in with_own_names(data, suffixes):
        targets = [_target_of(case, root, output_dir, each) for each in suffixes]
        target = targets[0]
        if target.parent == Path(case["image"]).parent.resolve():
            raise InputError(
                f"--output_dir {output_dir} is the folder of the input {case['image']}; a label map takes its input's "
                "name, so it must go elsewhere: choose another --output_dir"
            )
        if again or not all(map(os.path.exists, targets)):
            todo.append(case)
    if len(todo) < len(data):
        logger.info(
            "%d of %d volumes have a label map in %s already and are skipped; --overwrite true makes them again",
            len(data) - len(todo),
            len(data),
            output_dir,
        )
    if not todo:
        raise InputError(
            f"all {len(data)} volumes have a label map in {output_dir} already; give --overwrite true to make them "
            "again, or another --output_dir"
        )
    refuse_foreign(_target_of(case, root, output_dir, each) for case in todo for each in suffixes)
    return todo


def all_to_do(
    data: Sequence[Case], output_dir: str | Path, *, suffix: str = LABELS, probabilities: bool | str = False
) -> list[Case]:
    """Return all cases, whose label maps, and probabilities, are made again where they are ours.

    Raises:
        InputError: when two cases have one label map; when a label map would take the place of an input, or of a file
            that is not ours or was changed since, as by a person who corrected it.
    """
    root = common_root(data)
    inputs = {os.path.realpath(case[key]) for case in data for key in ("image", "label") if key in case}
    suffixes = _suffixes(suffix, probabilities)
    targets = [_target_of(case, root, output_dir, each) for case in with_own_names(data, suffixes) for each in suffixes]
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise InputError(f"{target} is an input, which is never replaced; choose another --prediction_dir")
    refuse_foreign(targets)
    return list(data)


def _suffixes(suffix: str, probabilities: bool | str) -> list[str]:
    """Return the suffixes of all that is written of a volume, the label map's first."""
    return [suffix, PROBABILITIES] if as_flag(probabilities, "save_probabilities") else [suffix]


def _target_of(case: Case, root: str | Path, output_dir: str | Path, suffix: str) -> Path:
    return Path(output_dir).resolve() / label_map_name(Path(case["image"]).relative_to(root), suffix)


def label_map_name(image: Path, suffix: str = LABELS) -> Path:
    """Return the relative path of an image's label map: the same, with another suffix."""
    return image.with_name(without_suffix(image.name) + suffix)


def named_after_image(metadata: dict[str, Any], saver: Any) -> dict[str, Any]:
    """Name a label map as :func:`label_map_name` does: ``output_name_formatter`` for ``SaveImaged``.

    MONAI takes off what follows the last dot of any name, and of ``.NII.GZ`` only the half.
    """
    named = default_name_formatter(metadata, saver)
    return {**named, "subject": str(label_map_name(Path(named["subject"]), ".nii"))}
