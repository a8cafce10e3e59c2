"""Cases of a dataset folder: those of a datalist, split by patient, or the volumes of a plain folder.

A datalist is ``datalist.json``: lists ``training``, ``validation`` and ``test`` of {image, label, patient} with paths
relative to the file, and ``labels``, a table from label value to name (see :mod:`kvseg_monai.data.datalist`). A
training needs ``training`` alone: without ``validation`` some of its patients are held out. No list ever stands for
another.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvseg_monai.data.datalist import (
    DATALIST,
    SECTIONS,
    UNLABELLED,
    Entry,
    describe_sections,
    label_names,
    patient_of,
    read_datalist,
    section_named,
)
from kvseg_monai.data.nifti import VOLUME_SUFFIXES, why_no_file
from kvseg_monai.data.search import as_sentence, find_nifti
from kvseg_monai.data.split import HELD_OUT, split_patients
from kvseg_monai.dicom.listing import list_volumes, not_dicom
from kvseg_monai.errors import InputError

logger = logging.getLogger(__name__)

Case = dict[str, str]


def class_names(dataset_dir: str | Path, default: Sequence[str]) -> list[str]:
    """Return the names of labels 1, 2, ... of the dataset, or ``default`` where its datalist names none."""
    names = label_names(dataset_dir)
    return list(default) if names is None else names


def notice(dataset_dir: str | Path) -> str | None:
    """Return what a reader of the scores must know of the dataset (its datalist's ``notice``), None for nothing."""
    return read_datalist(dataset_dir).get("notice")


def cases(
    dataset_dir: str | Path,
    section: str,
    *,
    holdout: float = 0.2,
    seed: int = 0,
    base_dir: str | Path | None = None,
) -> list[Case]:
    """Return the cases of a section, with labels, as absolute paths; links keep their own names.

    Where the datalist has no ``validation``, the fraction ``holdout`` of the training patients, drawn by ``seed``, is
    held out as such and left out of ``training``.

    Args:
        dataset_dir: the folder with the datalist.
        section: one of :data:`kvseg_monai.data.datalist.SECTIONS`, by any of its names.
        holdout: see above.
        seed: see above.
        base_dir: the folder that the datalist's paths are relative to; None for ``dataset_dir``.

    Raises:
        InputError: for a missing file, a case without label, or a section that is not there or empty.
    """
    wanted = section_named(section)
    if wanted not in SECTIONS:
        raise InputError(f"section is {section!r}; it must be one of {', '.join(SECTIONS)}")
    path = Path(dataset_dir) / DATALIST
    datalist = read_datalist(dataset_dir, base_dir=base_dir)
    entries = datalist[wanted]
    if wanted != "test" and not datalist["validation"] and datalist["training"]:
        training, validation = _hold_out(datalist["training"], holdout, seed)
        entries = training if wanted == "training" else validation
    if not entries:
        raise InputError(
            f"{path}: the {wanted} list is empty or not there, and none stands for another; the datalist has "
            f"{describe_sections(datalist)}: {_remedy(wanted)}"
        )
    base = Path(base_dir or dataset_dir).resolve()
    return [labelled(base, f"{path}, {wanted}", entry) for entry in entries]


def _remedy(section: str) -> str:
    """Say what to do without a section; ``--section`` is an option of evaluation, which asks for the test cases."""
    if section == "test":
        return "name test cases, or score others by --section validation (held out from training where none is listed)"
    return f"name {section} cases"


def _hold_out(entries: list[Entry], fraction: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Split by patient into what stays and what is held out, at least one patient of each where there are two."""
    patients = {patient_of(entry) for entry in entries}
    if len(patients) < 2:
        raise InputError(
            f"the datalist has {len(patients)} patient(s) and no validation list; training needs at least two "
            "patients, or a validation list of its own"
        )
    sections = split_patients(patients, {"validation": fraction}, seed=seed, draw=HELD_OUT)
    split: tuple[list[Entry], list[Entry]] = ([], [])
    for entry in entries:
        split[sections[patient_of(entry)] == "validation"].append(entry)
    return split


def labelled(base: Path, where: str, entry: Entry) -> Case:
    """Return an entry with absolute paths; refuse one without a label, or whose files are not there."""
    if "label" not in entry:
        raise InputError(f"{where}: {entry['image']} has no 'label'; training and scoring need one: add it")
    case = {key: str(base / entry[key]) for key in ("image", "label")}
    for path in case.values():
        if not os.path.isfile(path):
            raise InputError(f"{where}: the file {path} {why_no_file(path)}")
    return {**case, "patient": patient_of(entry)}


def volumes(
    dataset_dir: str | Path,
    *,
    section: str | None = None,
    base_dir: str | Path | None = None,
    required: bool = True,
) -> list[Case]:
    """Return what to segment: of a datalist the test cases, of a folder all NIfTI files and DICOM MR volumes below it.

    A NIfTI file has the name that the user gave it, also where that is a link (see :mod:`kvseg_monai.data.search`). A
    DICOM volume is named by its series number and a hash, not by its files (see :mod:`kvseg_monai.dicom.listing`).
    What is left out of a folder by rule is logged; what is at fault there is returned, so that reading it fails.

    Args:
        dataset_dir: folder or file.
        section: of a datalist, by any of its names; None for its test cases, or where it has none, those that it lists
            as unlabelled. They need no label.
        base_dir: the folder that the datalist's paths are relative to; None for ``dataset_dir``.
        required: whether it is a mistake that there is nothing.

    Raises:
        InputError: when there is nothing, where something is required.
    """
    root = Path(dataset_dir)
    if os.path.lexists(root / DATALIST):
        entries = _listed(root, read_datalist(root, base_dir=base_dir), section, required=required)
        return [{"image": str(Path(base_dir or root).resolve() / entry["image"])} for entry in entries]
    if root.is_file() and root.name.endswith(VOLUME_SUFFIXES):
        return [{"image": str(root.parent.resolve() / root.name)}]
    root = root.resolve()
    found, passed = find_nifti(root) if root.is_dir() else ([], [])
    images = [str(path) for path in found] + (list_volumes(root) if root.exists() else [])
    images = list(dict.fromkeys(images))  # a file that cannot be read is a volume by its name, and a fault
    left_out = as_sentence((kind, name) for kind, name in passed if not _is_dicom(root, kind, name))
    if not images and required:
        raise InputError(
            f"{root} has no volume{f' (passed over: {left_out})' if left_out else ''}; --dataset_dir must be a folder "
            f"with a {DATALIST}, a folder with files *.nii or *.nii.gz or DICOM MR series, or one such file"
        )
    if images and left_out:
        logger.warning("passed over: %s", left_out)
    return [{"image": image} for image in images]


def require_volumes(
    found: Sequence[Case],
    dataset_dir: str | Path,
    *,
    section: str | None = None,
    base_dir: str | Path | None = None,
) -> list[Case]:
    """Return the volumes that :func:`volumes` found without being required to.

    Raises:
        InputError: that it raises otherwise, where there are none.
    """
    return list(found) or volumes(dataset_dir, section=section, base_dir=base_dir)


def _is_dicom(root: Path, kind: str, name: str) -> bool:
    """Return whether a file that is no NIfTI file by its ending is DICOM, which has a count of its own."""
    return (kind.startswith("*") or kind == "without an ending") and name not in not_dicom(root)


def _listed(root: Path, datalist: Mapping[str, Any], section: str | None, *, required: bool) -> list[Entry]:
    wanted = ("test", UNLABELLED) if section is None else (section_named(section),)
    if None in wanted:
        raise InputError(f"section is {section!r}; it must be one of {', '.join((*SECTIONS, UNLABELLED))}")
    entries: list[Entry] = next((datalist[name] for name in wanted if name and datalist[name]), [])
    if not entries and required:
        raise InputError(
            f"{root / DATALIST} has no case in a list {' or '.join(map(str, wanted))}, and none stands for another; it "
            f"has {describe_sections(datalist)}: name test cases, choose a list by --section, or give the folder of "
            "the images as --dataset_dir"
        )
    return entries
