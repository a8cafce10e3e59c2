"""Search of a plain folder: its NIfTI files under the user's own names, and what is passed over, counted by kind."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvseg_monai.data.nifti import VOLUME_SUFFIXES
from kvseg_monai.utils.records import RECORD, recorded_as

LABEL_MAP = "label map"  # kind, in the records of what was written, of what inference and evaluation write
MAX_KINDS = 10
_SYSTEM = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".Z")

PassedOver = list[tuple[str, str]]  # kind, and path relative to the folder that was searched


def find_nifti(root: Path) -> tuple[list[Path], PassedOver]:
    """Search a folder and those below it for NIfTI files.

    Links are followed, to files and to folders, and a file is named as the user named it; what it leads to shows
    nowhere. A folder is searched once: under its own name where it lies below ``root``, else under the first link; a
    link to a folder that holds ``root`` or the link is none. Hidden files and folders are no data, nor are label maps
    that a record of ours lists, or devices and pipes, which are never opened.

    Returns:
        NIfTI files in the order of their names, with links that lead nowhere, whose reading fails; and what was passed
        over. Other files are among that, DICOM files too.
    """
    found: list[Path] = []
    passed: PassedOver = []
    for folder, names in _folders(root, passed):
        ours = recorded_as(folder, LABEL_MAP)
        for name in names:
            path = folder / name
            if not name.endswith(VOLUME_SUFFIXES):
                passed.append((_ending(name), str(path.relative_to(root))))
            elif name in ours and not path.is_symlink():
                passed.append(("label map made by kvseg_monai", str(path.relative_to(root))))
            elif os.path.isfile(path) or not os.path.exists(path):
                found.append(path)
            else:
                passed.append(("device or pipe", str(path.relative_to(root))))
    return sorted(found), sorted(passed)


def as_sentence(passed: Iterable[tuple[str, str]]) -> str:
    """Count what was passed over by kind, the first of each kind named; "" for nothing."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for kind, name in passed:
        kinds[kind].append(name)
    order = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    counts = [f"{len(kinds[kind])} {kind} (first: {kinds[kind][0]})" for kind in order[:MAX_KINDS]]
    if rest := order[MAX_KINDS:]:
        counts.append(
            f"{sum(len(kinds[kind]) for kind in rest)} of {len(rest)} other kinds (first: {kinds[rest[0]][0]})"
        )
    return ", ".join(counts)


def _folders(root: Path, hidden: PassedOver) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder once with the names of its files; links to folders are searched after what lies there."""
    waiting, seen = [str(root)], set()
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0)):
            real = Path(os.path.realpath(place))
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            concealed = [name for name in folders + names if _hidden(name) and name != RECORD]
            hidden += [("hidden", os.path.relpath(os.path.join(place, name), root)) for name in concealed]
            folders[:] = sorted(name for name in folders if not _hidden(name))
            links = [os.path.join(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            above = {real, *real.parents, root, *root.parents}
            waiting += [link for link in links if Path(os.path.realpath(link)) not in above]
            yield Path(place), [name for name in names if not _hidden(name)]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM


def _ending(name: str) -> str:
    """Return what files are counted by: ``*.mgz``, ``*.tar.gz``; what looks like a part of a name is none."""
    suffixes = Path(name).suffixes
    packed = len(suffixes) > 1 and suffixes[-1] in _PACKED
    ending = "".join(suffixes[-2:] if packed else suffixes[-1:])
    return f"*{ending}" if ending and len(ending) < 12 and not ending[1:].isdigit() else "without an ending"
