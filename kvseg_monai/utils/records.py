"""Records of what was written: each folder that is written into gets one, ``.kvseg_monai.jsonl``.

It has a line for each file, with the hash of what was written. Only a file that the record lists, and whose content is
still that, is replaced or deleted (see :mod:`kvseg_monai.utils.files`). A record may be deleted at any time; its files
then count as the user's own. One record can serve a folder and all below it, as that of a prepared data set does
(:func:`begin_record`).
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvseg_monai.errors import InputError

RECORD = ".kvseg_monai.jsonl"
_COVERS_ALL = '{"covers": "all below"}'  # first line of a record that serves the folders below too
_LEVELS = 4  # so many folders above are searched for such a record
_BLOCK = 1 << 20  # bytes


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Return whether the record of its folder lists the file, and its content is as we wrote it; never for a link."""
    return bool(only_ours([path]))


def only_ours(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return those of the files that are ours (see :func:`is_ours`); the record of a folder is read once."""
    records: dict[Path, dict[str, set[str]]] = {}
    found = []
    for path in map(Path, paths):
        if path.is_symlink() or not path.is_file():
            continue
        if path.parent not in records:
            records[path.parent] = recorded(path.parent)
        known = records[path.parent].get(path.name)
        if not known:
            continue
        digest = digest_of(path)  # read anew where it is not listed: another process may have just replaced the file
        if digest in known or digest in recorded(path.parent).get(path.name, set()):
            found.append(path)
    return found


def recorded(folder: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Return what is recorded of ``folder``: path relative to it -> hashes of what was written there."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in _entries(folder):
        found[entry["file"]].add(entry["sha256"])
    return dict(found)


def recorded_as(folder: str | os.PathLike[str], kind: str) -> set[str]:
    """Return the names of the files that were written into ``folder`` as this kind, changed since or not."""
    return {entry["file"] for entry in _entries(folder) if entry.get("kind") == kind}


def begin_record(folder: str | os.PathLike[str]) -> None:
    """Make the record of a folder serve the folders below it too; one that is there already stays as it is."""
    path = Path(folder) / RECORD
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{_COVERS_ALL}\n", encoding="utf-8")


def record(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Enter files that are there, named relative to ``folder``, into its own record: we wrote them."""
    for name in names:
        add_entry(Path(folder), name, digest_of(Path(folder) / name), own=True)


def add_entry(folder: Path, name: str, digest: str, kind: str | None = None, *, own: bool = False) -> None:
    """Enter a file, named relative to ``folder``, into the record that serves it; ``own`` makes it the folder's own."""
    above = None if own or os.path.lexists(folder / RECORD) else _covering(folder)
    if above:
        name, folder = (folder / name).relative_to(above).as_posix(), above
    path = folder / RECORD
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):  # what it leads to may be the user's
        raise InputError(f"{path} is no file; there is kept what was written into its folder: move it away")
    entry = {"file": name, "sha256": digest} | ({"kind": kind} if kind else {})
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    stream = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(stream, line.encode("utf-8", "surrogateescape"))  # in one piece: several processes may write
    finally:
        os.close(stream)


def digest_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _entries(folder: str | os.PathLike[str]) -> Iterator[dict[str, str]]:
    """Yield what is recorded of a folder, there and above; ``file`` is relative to it."""
    folder = Path(folder)
    yield from _lines(folder)
    if above := _covering(folder):
        prefix = f"{folder.relative_to(above).as_posix()}/"
        for entry in _lines(above):
            if entry["file"].startswith(prefix):
                yield {**entry, "file": entry["file"].removeprefix(prefix)}


def _covering(folder: Path) -> Path | None:
    """Return the nearest folder above whose record serves those below it."""
    for above in list(folder.parents)[:_LEVELS]:
        path = above / RECORD
        try:
            if path.is_file() and not path.is_symlink():
                with path.open(encoding="utf-8", errors="surrogateescape") as stream:
                    if stream.readline().strip() == _COVERS_ALL:
                        return above
        except OSError:
            continue
    return None


def _lines(folder: str | os.PathLike[str]) -> Iterator[dict[str, str]]:
    """Yield the entries of a record, without a line that a crash cut off."""
    path = Path(folder) / RECORD
    try:
        if path.is_symlink() or not path.is_file():  # opening a FIFO would wait for ever
            return
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            if isinstance(entry["file"], str) and isinstance(entry["sha256"], str):
                yield entry
        except (ValueError, TypeError, KeyError):
            continue
