"""``datalist.json``: its lists under any of their usual names, its labels, and what is refused in it.

Read it is an object with a list for each of :data:`SECTIONS` and ``unlabelled``, of {image, label, patient}: paths as
POSIX text without ``./``, the patient as text, and label and patient only where the file has them. What else the file
holds (``labels``, ``notice``, ``name``, ...) stays as it is.
"""

import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from kvseg_monai.errors import InputError

DATALIST = "datalist.json"
SECTIONS = ("training", "validation", "test")
UNLABELLED = "unlabelled"
Entry = dict[str, str]

SYNONYMS = {  # MONAI's bundles and Auto3DSeg, the Medical Segmentation Decathlon, nnU-Net; capitals do not count
    "training": ("training", "train", "imagesTr"),
    "validation": ("validation", "val", "imagesVal", "imagesVa"),
    "test": ("test", "testing", "imagesTs"),
    UNLABELLED: ("unlabelled", "unlabeled"),
}
_SECTION_OF = {name.casefold(): section for section, names in SYNONYMS.items() for name in names}


def section_named(name: object) -> str | None:
    """Return the section that a name means, as ``testing`` means ``test``; None for no section."""
    return _SECTION_OF.get(str(name).casefold())


def patient_of(entry: Mapping[str, str]) -> str:
    """Return the patient; an image of nobody in particular counts as a patient of its own."""
    return entry.get("patient", entry["image"])


def read_datalist(dataset_dir: str | Path, *, base_dir: str | Path | None = None) -> dict[str, Any]:
    """Read and check ``dataset_dir/datalist.json``.

    Args:
        dataset_dir: the folder with the file.
        base_dir: the folder that its paths are relative to; None for ``dataset_dir``.

    Raises:
        InputError: when the file is missing, is no JSON or of another shape; when a path in it is absolute or has
            ``..``; when two lists have names of one section, a patient is in two sections, or a file is named twice.
    """
    path = Path(dataset_dir) / DATALIST
    found = _load(path)
    datalist = {key: value for key, value in found.items() if section_named(key) is None}
    notice = datalist.get("notice")
    if notice not in (None, "") and not _is_text(notice):
        raise InputError(f"{path}: 'notice' is {reprlib.repr(notice)}; it must be a text: correct it or take it out")
    lists = {section: [name for name in found if section_named(name) == section] for section in SYNONYMS}
    for section, names in lists.items():
        if len(names) > 1:
            raise InputError(f"{path} has {_words(names)}, which all mean the {section} list; put all cases into one")
        datalist[section] = list(_entries(path, names[0], found[names[0]])) if names else []
    _refuse_shared_patients(path, datalist)
    _refuse_files_named_twice(path, datalist, Path(base_dir or dataset_dir))
    return datalist


def label_names(dataset_dir: str | Path) -> list[str] | None:
    """Return the names of labels 1, 2, ... by the datalist's ``labels``, None where it has none.

    ``labels`` is {value: name}, or, as nnU-Net writes it, {name: value}.

    Raises:
        InputError: when it is something else, has a gap, or one name for two values.
    """
    path = Path(dataset_dir) / DATALIST
    labels = read_datalist(dataset_dir).get("labels")
    if labels is None or labels == {}:
        return None
    rule = 'it must be {"0": "background", "1": a name, ...}'
    if not isinstance(labels, dict):
        raise InputError(f"{path}: 'labels' is {reprlib.repr(labels)}; {rule}")
    pairs = [(key, item) if type(item) is int else (item, key) for key, item in labels.items()]
    for name, value in pairs:
        if not _is_text(name) or not re.fullmatch("[0-9]{1,9}", str(value)):
            raise InputError(f"{path}: 'labels' has {reprlib.repr(value)} for {reprlib.repr(name)}; {rule}")
    names = {int(value): name for name, value in pairs}
    if sorted(int(value) for _, value in pairs) != list(range(len(pairs))):
        raise InputError(
            f"{path}: the label values are {sorted(int(value) for _, value in pairs)}; they must be 0 (background), 1, "
            "2, ... without a gap, each once"
        )
    if len(set(names.values())) < len(names):
        raise InputError(f"{path}: two labels have one name ({_words(names.values())}); give each a name of its own")
    return [names[value] for value in range(1, len(names))]


def describe_sections(datalist: Mapping[str, Any]) -> str:
    """Return which lists have how many cases, as part of a sentence."""
    there = [f"{section} ({len(datalist[section])})" for section in SYNONYMS if datalist[section]]
    return " and ".join(there) if there else "no list with a case"


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path} {'is no file' if path.exists() else 'is missing'}; dataset_dir must be a folder with a "
            f"{DATALIST}: prepare one with `python -m data_prep.uw_madison`, or correct --dataset_dir"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct it or prepare the dataset again") from error
    if not isinstance(found, dict):
        raise InputError(
            f"{path} is {_kind(found)}; a datalist is an object with the lists {', '.join(SECTIONS)}: correct it or "
            "prepare the dataset again"
        )
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; JSON would take the last of two values of one key and lose the other without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _entries(path: Path, name: str, entries: Any) -> Iterator[Entry]:
    """Yield the entries of one list, checked; a text alone is an image."""
    if not isinstance(entries, list):
        raise InputError(f"{path}: '{name}' is {_kind(entries)}; it must be a list of {{image, label, patient}}")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, {name}, entry {number}"
        entry = {"image": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or "image" not in entry:
            raise InputError(f"{where} is {_kind(entry)}; each must be an object with an 'image', or its path alone")
        found = {"image": _relative(where, "image", entry["image"])}
        if entry.get("label") is not None:
            found["label"] = _relative(where, "label", entry["label"])
        if "patient" in entry:
            found["patient"] = _patient(where, entry["patient"])
        yield found


def _relative(where: str, key: str, text: Any) -> str:
    """Return a path as it is compared and used: POSIX, without ``./``."""
    if not _is_text(text) or not text.strip(" ./") or "\0" in text:
        found = reprlib.repr(text)
        raise InputError(f"{where}: the {key} is {found}; it must be the path of one file, relative to the datalist")
    windows = PureWindowsPath(text)  # also on Linux: a datalist is read where it was not written
    if PurePosixPath(text).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise InputError(
            f"{where}: the {key} is {text}; a datalist names files by paths relative to itself and below it, neither "
            "absolute nor with '..': put the files there or links to them, or give their folder as --base_dir"
        )
    return PurePosixPath(text).as_posix()


def _patient(where: str, patient: Any) -> str:
    if type(patient) is not int and not _is_text(patient):
        raise InputError(
            f"{where}: the patient is {_kind(patient)}; it must be a text or a whole number, or be left out where each "
            "image is of another patient"
        )
    return str(patient)


def _refuse_shared_patients(path: Path, datalist: Mapping[str, Sequence[Entry]]) -> None:
    seen: dict[str, str] = {}
    for section in SECTIONS:
        for patient in map(patient_of, datalist[section]):
            if seen.setdefault(patient, section) != section:
                raise InputError(
                    f"{path}: patient {patient} is in {seen[patient]} and in {section}; a patient may be in one list "
                    "only, else the score is too good: move all its entries into one"
                )


def _refuse_files_named_twice(path: Path, datalist: Mapping[str, Sequence[Entry]], base: Path) -> None:
    """Refuse a name that is there twice, and one image under two names, which links or a second copy of a link make.

    Label maps may be one file under two names: stores that keep equal contents once, as git-annex and a hub's cache do,
    make one of two empty label maps.
    """
    names: dict[str, str] = {}
    images: dict[tuple[int, int], str] = {}
    for section in SYNONYMS:
        for entry in datalist[section]:
            for key in entry.keys() - {"patient"}:
                _refuse_second(path, names, entry[key], f"{entry[key]}, {key} in {section}")
            try:
                file = os.stat(base / entry["image"])
            except (OSError, ValueError):  # whoever reads the case reports that it is missing
                continue
            _refuse_second(path, images, (file.st_dev, file.st_ino), f"{entry['image']} in {section}")


def _refuse_second(path: Path, seen: dict[Any, str], key: Any, name: str) -> None:
    if key in seen:
        raise InputError(
            f"{path}: one file is there twice ({seen[key]}; {name}); name each image once, under one patient and in "
            "one list, with a label of its own, else the score is too good: take one of the two out"
        )
    seen[key] = name


def _is_text(value: Any) -> bool:
    """Return whether it is a text with a letter that can be written; half a character, as JSON may hold, cannot."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def _kind(value: Any) -> str:
    """Say what was found, in short, and of an object only its keys: values may identify a patient."""
    if isinstance(value, dict):
        return f"an object with {_words(list(value)[:5]) or 'nothing'}"
    return "a list" if isinstance(value, list) else json.dumps(value)[:30]


def _words(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
