"""What a dataset folder holds: cases of a datalist, split by patient, or the volumes of a plain folder.

A datalist is ``datalist.json``: lists ``training``, ``validation`` and ``test`` of {image, label, patient} with paths
relative to the file, and ``labels``, a table from label value to name. Only ``training`` is required: what is missing
is split off from it, by patient.
"""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvseg_monai.dicom.listing import list_volumes
from kvseg_monai.errors import InputError
from kvseg_monai.readers import VOLUME_SUFFIXES

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")
Case = dict[str, str]


def read_datalist(dataset_dir: str | Path) -> dict[str, Any]:
    """Read and check ``dataset_dir/datalist.json``; a patient in two sections is refused.

    Raises:
        InputError: when the file is missing, is no JSON, lacks a part, or has one patient in two sections.
    """
    path = Path(dataset_dir) / "datalist.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing; dataset_dir must be a folder with a datalist.json: prepare one with "
            "`python -m data_prep.uw_madison`, or correct --dataset_dir"
        )
    try:
        datalist = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct it or prepare the dataset again") from error
    if not isinstance(datalist, dict) or not isinstance(datalist.get("training", []), list):
        raise InputError(f"{path} has no list 'training'; a datalist is an object with the lists {', '.join(SECTIONS)}")
    _refuse_shared_patients(path, datalist)
    return datalist


def _refuse_shared_patients(path: Path, datalist: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for section in SECTIONS:
        for entry in datalist.get(section, []):
            if not isinstance(entry, dict) or "image" not in entry:
                raise InputError(f"{path}, {section}: an entry is {entry!r}; each must be an object with an 'image'")
            patient = str(entry.get("patient", entry["image"]))
            if seen.setdefault(patient, section) != section:
                raise InputError(
                    f"{path}: patient {patient} is in {seen[patient]} and in {section}; a patient may be in one list "
                    "only, else the score is too good: move all its entries into one"
                )


def class_names(dataset_dir: str | Path, default: Sequence[str]) -> list[str]:
    """Return the names of labels 1, 2, ... of the dataset, or ``default`` where its datalist names none."""
    labels = read_datalist(dataset_dir).get("labels")
    if not labels:
        return list(default)
    names = {int(value): str(name) for value, name in labels.items()}
    if sorted(names) != list(range(len(names))):
        raise InputError(
            f"{Path(dataset_dir) / 'datalist.json'}: the label values are {sorted(names)}; they must be "
            "0 (background), 1, 2, ... without a gap"
        )
    return [names[value] for value in range(1, len(names))]


def notice(dataset_dir: str | Path) -> str | None:
    """Return what a reader of the scores must know of the dataset (its datalist's ``notice``), None for nothing."""
    return read_datalist(dataset_dir).get("notice")


def cases(dataset_dir: str | Path, section: str, *, holdout: float = 0.2, seed: int = 0) -> list[Case]:
    """Return the cases of a section with absolute paths.

    Where the datalist has no ``validation``, the fraction ``holdout`` of the training patients, drawn by ``seed``, is
    held out as such and left out of ``training``. Where it has no ``test``, ``test`` means ``validation``.

    Raises:
        InputError: for a missing file, a case without label, or a section that would be empty.
    """
    root = Path(dataset_dir)
    datalist = read_datalist(root)
    if section == "test" and not datalist.get("test"):
        logger.info("%s has no test list: the validation list is used", root / "datalist.json")
        section = "validation"
    if section not in SECTIONS:
        raise InputError(f"section is {section!r}; it must be one of {', '.join(SECTIONS)}")
    entries = datalist.get(section, [])
    if section != "test" and not datalist.get("validation"):
        training, validation = _hold_out(datalist["training"], holdout, seed)
        entries = training if section == "training" else validation
    if not entries:
        raise InputError(f"{root / 'datalist.json'}: the {section} list is empty; it must name at least one case")
    return [_resolve(root, section, entry) for entry in entries]


def _hold_out(entries: list[Case], fraction: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Split by patient into what stays and what is held out, at least one patient of each where there are two."""
    patients = sorted({str(entry.get("patient", entry["image"])) for entry in entries})
    if len(patients) < 2:
        raise InputError(
            f"the datalist has {len(patients)} patient(s) and no validation list; training needs at least two "
            "patients, or a validation list of its own"
        )
    random.Random(seed).shuffle(patients)
    held = set(patients[: min(max(1, round(fraction * len(patients))), len(patients) - 1)])
    split: tuple[list[Case], list[Case]] = ([], [])
    for entry in entries:
        split[str(entry.get("patient", entry["image"])) in held].append(entry)
    return split


def _resolve(root: Path, section: str, entry: Case) -> Case:
    if "label" not in entry:
        raise InputError(f"{root / 'datalist.json'}, {section}: {entry['image']} has no 'label'; scoring needs one")
    case = {key: str((root / entry[key]).resolve()) for key in ("image", "label")}
    for path in case.values():
        if not Path(path).is_file():
            raise InputError(f"{root / 'datalist.json'}, {section}: the file {path} is missing; restore it")
    return {**case, "patient": str(entry.get("patient", Path(entry["image"]).name))}


def volumes(dataset_dir: str | Path, *, required: bool = True) -> list[Case]:
    """Return what to segment: of a datalist the test cases, of a folder all NIfTI files and DICOM MR volumes below it.

    A DICOM volume is named by its series number and a hash, not by its files (see :mod:`kvseg_monai.dicom.listing`).
    What is left out of a DICOM folder by rule is told; what is at fault there is returned, for its reading to tell.

    Raises:
        InputError: when there is nothing, where something is required.
    """
    root = Path(dataset_dir)
    if (root / "datalist.json").is_file():
        return _listed_volumes(root)
    if root.is_file() and root.name.endswith(VOLUME_SUFFIXES):
        return [{"image": str(root.resolve())}]
    found = sorted(path for path in root.rglob("*") if path.name.endswith(VOLUME_SUFFIXES)) if root.is_dir() else []
    images = [str(path.resolve()) for path in found] + (list_volumes(root) if root.exists() else [])
    images = list(dict.fromkeys(images))  # a file that cannot be read is a volume by its name, and a fault
    if not images and required:
        raise InputError(
            f"{root} has no volume; --dataset_dir must be a folder with a datalist.json, a folder with files "
            f"{' or '.join('*' + suffix for suffix in VOLUME_SUFFIXES)} or DICOM MR series, or one such file"
        )
    return [{"image": image} for image in images]


def _listed_volumes(root: Path) -> list[Case]:
    """Test cases, or, where the datalist has no case with a label, those without one."""
    datalist = read_datalist(root)
    if datalist.get("unlabelled") and not any(datalist.get(section) for section in SECTIONS):
        return [{"image": str((root / entry["image"]).resolve())} for entry in datalist["unlabelled"]]
    return [{"image": case["image"]} for case in cases(root, "test")]
