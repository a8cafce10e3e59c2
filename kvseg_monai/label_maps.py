"""Where the bundles' label maps go: folders and names as of their images, whole files, none made twice unasked."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import NibabelWriter

from kvseg_monai.data import Case
from kvseg_monai.errors import InputError
from kvseg_monai.files import refuse_foreign, whole_file
from kvseg_monai.overrides import as_flag

logger = logging.getLogger(__name__)


def common_root(data: Sequence[Case]) -> str:
    """Return the deepest folder that holds all images, so that label maps keep the folders below it; "" for none."""
    return os.path.commonpath([str(Path(case["image"]).parent) for case in data]) if data else ""


def still_to_do(
    data: Sequence[Case], output_dir: str | Path, *, overwrite: bool | str = False, suffix: str = ".nii.gz"
) -> list[Case]:
    """Leave out the volumes whose label map is in ``output_dir`` already, and say so.

    Raises:
        InputError: when a label map would take the place of its input, or, with ``overwrite``, of a file that is not
            ours or was changed since, as by a person who corrected it; or when nothing is left to do.
    """
    root = common_root(data)
    again, todo = as_flag(overwrite, "overwrite"), []
    for case in data:
        target = _target_of(case, root, output_dir, suffix)
        if target.parent == Path(case["image"]).parent:
            raise InputError(
                f"--output_dir {output_dir} is the folder of the input {case['image']}; a label map takes its input's "
                "name, so it must go elsewhere: choose another --output_dir"
            )
        if again or not target.exists():
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
    refuse_foreign(_target_of(case, root, output_dir, suffix) for case in todo)
    return todo


def all_to_do(data: Sequence[Case], output_dir: str | Path, *, suffix: str = ".nii.gz") -> list[Case]:
    """Return all cases, whose label maps are made again where they are ours.

    Raises:
        InputError: when a label map would take the place of an input, or of a file that is not ours or was changed
            since, as by a person who corrected it.
    """
    root = common_root(data)
    inputs = {os.path.realpath(case[key]) for case in data for key in ("image", "label") if key in case}
    targets = [_target_of(case, root, output_dir, suffix) for case in data]
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise InputError(f"{target} is an input, which is never replaced; choose another --prediction_dir")
    refuse_foreign(targets)
    return list(data)


def _target_of(case: Case, root: str | Path, output_dir: str | Path, suffix: str) -> Path:
    return Path(output_dir).resolve() / label_map_name(Path(case["image"]).relative_to(root), suffix)


def label_map_name(image: Path, suffix: str = ".nii.gz") -> Path:
    """Return the relative path of an image's label map: the same, with another suffix."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + suffix)


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer, but a file appears under its name only when it is whole."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the whole file; a volume of one slice keeps its third axis."""
        if self.data_obj is not None and self.data_obj.ndim == 2:
            self.data_obj = self.data_obj[..., None]
        with whole_file(filename) as temporary:
            super().write(temporary, verbose=verbose, **obj_kwargs)
