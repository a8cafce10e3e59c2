"""The folder a preparation writes into: refused when it holds anything else, resumed when it is the same data.

``images``, ``labels`` and ``records`` hold one file per scan; ``datalist.json`` and ``summary.json`` lie beside them.
The summary is written first, unfinished, so that an interrupted run is distinguished from somebody else's folder. What
takes the place of an earlier preparation is made in a folder of its own inside the target, and moved when all of it is
there.
"""

import contextlib
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_prep.common.files import read_json, write_json
from kvseg_monai.data.datalist import DATALIST
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write, discard_partials, refuse_foreign
from kvseg_monai.utils.records import RECORD, begin_record, is_ours, only_ours, recorded

FOLDERS = ("images", "labels", "records")
SUMMARY = "summary.json"
REPLACEMENT = ".replacement"  # what --overwrite makes, until it is whole
LONGEST_NAME = 230  # bytes: file systems allow 255, and an ending and the mark of an unfinished file are added


def paths(name: str, target: Path) -> tuple[Path, Path, Path]:
    """Return the image, label and record file of the scan ``name``."""
    return (
        target / "images" / f"{name}.nii.gz",
        target / "labels" / f"{name}.nii.gz",
        target / "records" / f"{name}.json",
    )


def check_names(names: Iterable[str]) -> None:
    """Refuse scans whose files would lie elsewhere, be hidden, or be those of another scan.

    Raises:
        InputError: for such a name, and for two that are one where upper and lower case are the same.
    """
    taken: dict[str, str] = {}
    for name in names:
        odd = not name or name.startswith(".") or any(one in "/\\" or _is_control(one) for one in name)
        if odd or len(name.encode()) > LONGEST_NAME:
            raise InputError(
                f"the scan '{ascii(name)[1:-1][:60]}' cannot be the name of a file (no dot at its start, no /, \\ or "
                f"control character, at most {LONGEST_NAME} bytes are allowed); rename it"
            )
        key = unicodedata.normalize("NFC", name).casefold()
        if key in taken:
            same = (
                "of one name" if taken[key] == name else f"named {taken[key]} and {name}, which are one file on disks"
            )
            rest = "" if taken[key] == name else " that do not distinguish upper from lower case"
            raise InputError(f"two scans are {same}{rest} ({name}); rename one of them")
        taken[key] = name


def check_target(target: Path, *, tool: str, source_fingerprint: str, overwrite: bool) -> None:
    """Raise :class:`InputError` unless ``target`` is new, empty, a run of ``tool`` on the same source, or given up.

    Writes nothing.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"--target {target} is a file; give a folder, new or empty")
    if not target.is_dir() or not any(target.iterdir()):
        return
    summary = read_json(target / SUMMARY)
    prepared = isinstance(summary, dict) and {"tool", "source_fingerprint"} <= summary.keys()
    problem, more = "", "; give a new or empty folder"
    if prepared and not is_ours(target / SUMMARY):
        problem = f"a preparation whose {SUMMARY} no {RECORD} lists, as of an older version, or that was changed since"
        more = "; it counts as yours, so nothing of it is replaced: give a new or empty folder"
    elif overwrite and not prepared:
        others = [name for name in (SUMMARY, DATALIST) if (target / name).exists()]
        problem = f"a {others[0]}, but no preparation, which would write one" if others else ""
    elif not overwrite and not prepared:
        problem = "files that are not from this preparation"
        more += ", or add --overwrite to write there all the same (other files stay)"
    elif not overwrite and (summary["tool"], summary["source_fingerprint"]) != (tool, source_fingerprint):
        problem = "another data set"
        more += ", or add --overwrite to replace it"
    if problem:
        raise InputError(f"--target {target} already holds {problem}{more}")


@contextlib.contextmanager
def opened_target(
    target: Path, *, tool: str, source_fingerprint: str, names: list[str], overwrite: bool
) -> Iterator[Path]:
    """Give the folder to write a preparation of the scans ``names`` into, after :func:`check_target`.

    That is ``target``, or, where ``overwrite`` finds an earlier preparation there, a folder in it, whose files take the
    place of the earlier ones when the block is done. If the block fails the earlier ones stay as they were, and the
    next run with ``overwrite`` goes on. Files of others are never removed nor replaced.

    Raises:
        InputError: when a file that is not ours, or was changed since, is in the place of one to write; when the block
            converted no scan that could take the place of an earlier one.
    """
    mark = {"tool": tool, "source_fingerprint": source_fingerprint}
    check_names(names)
    check_target(target, overwrite=overwrite, **mark)
    draft = target / REPLACEMENT
    replaces = overwrite and any(recorded(folder) for folder in (target, *(target / name for name in FOLDERS)))
    places = [path for name in names for path in paths(name, target)] if overwrite else []
    places += [target / SUMMARY, target / DATALIST]
    refuse_foreign(places)
    held = read_json(draft / SUMMARY)
    if draft.is_dir() and not (replaces and isinstance(held, dict) and mark.items() <= held.items()):
        _clear(draft)
    folder = draft if replaces else target
    _begin(folder, mark)
    for place in {target, folder}:
        _discard_partials(place, names)
    yield folder
    if replaces:
        refuse_foreign(places)  # much time has gone by
        _replace(target, draft, mark)


def _begin(folder: Path, mark: dict[str, Any]) -> None:
    """Make the folders, and write an unfinished summary."""
    try:
        for kind in FOLDERS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        begin_record(folder)  # one for all its files, so that images and labels hold nothing else
        write_json(folder / SUMMARY, {**mark, "complete": False})
    except OSError as error:
        raise InputError(
            f"--target {folder} cannot be written ({error.strerror}); give a folder you may write to"
        ) from error


def _discard_partials(folder: Path, names: list[str]) -> None:
    """Remove what a run that was killed left."""
    for files in zip(*(paths(name, folder) for name in names), strict=True):
        discard_partials(files[0].parent, [path.name for path in files])
    discard_partials(folder, [SUMMARY, DATALIST])


def _replace(target: Path, draft: Path, mark: dict[str, Any]) -> None:
    """Remove the earlier preparation of ``target`` and move the new one there.

    The old datalist goes first and the new one comes last, so that none names files of another preparation; a scan's
    record likewise. A run that is stopped in between goes on as any other.
    """
    if not any((draft / "records").glob("*.json")):
        failed = (read_json(draft / SUMMARY) or {}).get("failed") or {"": "no scan is left"}
        _clear(draft)
        raise InputError(
            f"nothing could be prepared, so that the earlier preparation in {target} stays: "
            f"{next(iter(failed.values()))}"
        )
    for path in _files_of(target):
        if path != target / SUMMARY:
            path.unlink()
    write_json(target / SUMMARY, {**mark, "complete": False})
    for path in reversed(_files_of(draft)):
        with atomic_write(target / path.relative_to(draft)) as temporary:
            shutil.move(path, temporary)  # a rename, or a copy where the folder is a link to another disk
    _clear(draft)


def _files_of(folder: Path) -> list[Path]:
    """Return the preparation's files in ``folder`` that are as we wrote them: datalist, summary, records, then volumes.

    A label map of a scan without labels is none of them: a prediction may have been written there.
    """
    records = only_ours(folder / "records" / name for name in sorted(recorded(folder / "records")))
    volumes = []
    for record in records:
        image, label, _ = paths(record.stem, folder)
        volumes += [image, label] if (read_json(record) or {}).get("labelled") else [image]
    return [*only_ours([folder / DATALIST, folder / SUMMARY]), *records, *only_ours(volumes)]


def _clear(draft: Path) -> None:
    """Remove our folder inside the target, but for files that are not ours."""
    for folder in (*(draft / kind for kind in FOLDERS), draft):
        for path in only_ours(folder / name for name in recorded(folder)):
            path.unlink()
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {RECORD}:
            (folder / RECORD).unlink(missing_ok=True)
            folder.rmdir()


def _is_control(one: str) -> bool:
    """Return whether a character is invisible: control, format, private, or half a character that no text may hold."""
    return unicodedata.category(one).startswith("C")
