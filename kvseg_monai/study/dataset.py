"""The datalist that all arms of a study read: the split's patients, with the dataset's volumes."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvseg_monai.data.datalist import SECTIONS, patient_of, read_datalist
from kvseg_monai.data.dataset import class_names
from kvseg_monai.data.nifti import read_nifti, why_no_file
from kvseg_monai.errors import InputError
from kvseg_monai.study.plan import Study
from kvseg_monai.utils.files import refuse_foreign, write_text

logger = logging.getLogger(__name__)


FOLDER, FILE = "dataset", "datalist.json"  # in a study's folder; apart from the arms, which read it


def find_datalist(folder: Path) -> Path:
    """Return a study's datalist below the study's folder, also where a study made earlier has it."""
    new, earlier = folder / FOLDER / FILE, folder / FILE
    return earlier if earlier.is_file() and not new.is_file() else new


def write_datalist(study: Study) -> None:
    """Write ``dataset/datalist.json`` for the study's split into its ``output_dir``; paths are relative to the dataset.

    The label maps are read once, when the file is new or changes. Patients in no section are logged and left out.

    Raises:
        InputError: a patient of the split is not in the dataset, a file is missing, or a label is undeclared.
    """
    assert study.dataset_dir is not None
    dataset_dir, split = study.dataset_dir, study.split
    source = read_datalist(dataset_dir)
    entries: dict[str, list[dict[str, str]]] = {}
    for section in SECTIONS:
        for entry in source.get(section, []):
            entries.setdefault(patient_of(entry), []).append(entry)
    _compare_patients(dataset_dir, split, entries)
    datalist: dict[str, Any] = {key: source[key] for key in ("labels", "notice") if key in source}
    for section, patients in split.items():
        datalist[section] = [
            _labelled(dataset_dir, patient, entry) for patient in patients for entry in entries[patient]
        ]
    text = json.dumps(datalist, indent=1) + "\n"
    path, target = find_datalist(study.output_dir), study.output_dir / FOLDER / FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        refuse_foreign([target])
        _check_labels(dataset_dir, datalist)
    write_text(target, text)


def _compare_patients(dataset_dir: Path, split: Mapping[str, list[str]], entries: Mapping[str, Any]) -> None:
    named = {patient for patients in split.values() for patient in patients}
    missing = sorted(named - set(entries))
    if missing:
        raise InputError(
            f"{dataset_dir / 'datalist.json'} lacks {len(missing)} patient(s) of the split ({', '.join(missing[:3])}); "
            "complete the dataset, or take them out of the split"
        )
    left_out = sorted(set(entries) - named)
    if left_out:
        logger.warning(
            "%d patient(s) of the dataset are in no section and left out: %s", len(left_out), ", ".join(left_out)
        )


def _labelled(dataset_dir: Path, patient: str, entry: Mapping[str, str]) -> dict[str, str]:
    if "label" not in entry:
        raise InputError(
            f"{dataset_dir / 'datalist.json'}: {entry['image']} has no 'label'; a study needs all labelled"
        )
    for path in (dataset_dir / entry[key] for key in ("image", "label")):
        if not path.is_file():
            raise InputError(f"{dataset_dir / 'datalist.json'}: the file {path} {why_no_file(path)}")
    return {"image": entry["image"], "label": entry["label"], "patient": patient}


def _check_labels(dataset_dir: Path, datalist: Mapping[str, Any]) -> None:
    names = class_names(dataset_dir, [])
    if not names:
        raise InputError(f"{dataset_dir / 'datalist.json'} has no 'labels'; a study needs a table of value and name")
    for entry in (entry for section in SECTIONS for entry in datalist[section]):
        voxels, _ = read_nifti(dataset_dir / entry["label"])
        wrong = [value for value in np.unique(voxels).tolist() if value not in range(len(names) + 1)]
        if wrong:
            raise InputError(
                f"{dataset_dir / entry['label']} holds the values {wrong[:5]}; the dataset declares 0 to {len(names)} "
                f"(background, {', '.join(names)}): correct the label map, or declare them in datalist.json"
            )


def data_record(folder: Path) -> dict[str, Any]:
    """Return what identifies the data of a study: labels, and a hash of sections, patients and file names."""
    datalist = json.loads(find_datalist(folder).read_text(encoding="utf-8"))
    cases = [
        (section, entry["patient"], Path(entry["image"]).name, Path(entry["label"]).name)
        for section in SECTIONS
        for entry in datalist[section]
    ]
    return {"labels": datalist["labels"], "cases": hashlib.sha256(json.dumps(cases).encode()).hexdigest()[:16]}
