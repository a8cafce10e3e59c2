"""Files that are there whole or not at all, and that never take the place of what somebody else wrote.

Each folder that is written into gets a record, ``.kvseg_monai.jsonl``: a line for each file, with the hash of what was
written. Only a file that the record lists, and whose content is still that, is replaced or deleted. A record may be
deleted at any time; its files then count as the user's own. One record can serve a folder and all below it, as that of
a prepared data set does (:func:`begin_record`).
"""

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvseg_monai.errors import InputError

PARTIAL = ".partial-"
RECORD = ".kvseg_monai.jsonl"
_COVERS_ALL = '{"covers": "all below"}'  # first line of a record that serves the folders below too
_LEVELS = 4  # so many folders above are searched for such a record
_BLOCK = 1 << 20  # bytes


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, keep: bool = False, kind: str | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what the block writes there takes the place of ``path`` when it is done.

    The folder is made where it is missing. If the block fails, nothing is left behind and an earlier file stays.

    Args:
        path: the file to write.
        keep: rename a file that is there and not ours to a name with its date, instead of refusing.
        kind: what the file is, kept in the record (:func:`recorded_as`).

    Raises:
        InputError: ``path`` is a folder, one of its parents is a file, or there is a file of other content that no
            record of ours lists.
    """
    path = Path(path)
    refuse_folders([path])
    path.parent.mkdir(parents=True, exist_ok=True)
    # The dot hides what a crash leaves, the process id keeps two writers apart, and writers choose by the suffixes.
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        digest = digest_of(temporary)
        if os.path.lexists(path) and not is_ours(path):
            if path.is_file() and digest_of(path) == digest:
                return
            if not keep:
                refuse_foreign([path])
            set_aside(path)
        listed = os.path.lexists(path) and digest in recorded(path.parent).get(path.name, set())
        if not listed:  # before the file: one that a crash leaves unlisted could not be replaced
            _append(path.parent, path.name, digest, kind)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, *, keep: bool = False) -> Path:
    """Write text as UTF-8, whole or not at all (see :func:`atomic_write`); return the path."""
    return write_bytes(path, text.encode(), keep=keep)  # bytes: the same line ends on every system


def write_bytes(path: str | os.PathLike[str], content: bytes, *, keep: bool = False) -> Path:
    """Write a file whole or not at all (see :func:`atomic_write`); return the path."""
    with atomic_write(path, keep=keep) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def edit_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the text of a file that the user asked to be changed, whole or not at all; it stays the user's own."""
    path = Path(path).resolve()
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        temporary.write_bytes(text.encode())
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def refuse_foreign(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write where somebody else's file, or one of ours that was changed since, is in the place.

    Raises:
        InputError: naming the first of them; also where a folder is, or a file in the place of a folder.
    """
    paths = [Path(path) for path in paths]
    refuse_folders(paths)
    there = [path for path in paths if os.path.lexists(path)]
    ours = set(only_ours(there))
    foreign = [path for path in there if path not in ours]
    if foreign:
        others = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise InputError(
            f"{foreign[0]}{others} is there and was not written by kvseg_monai, or was changed since; only what it "
            "wrote itself is replaced: move the file away, or name another place"
        )


def refuse_folders(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write a file where a folder is, or where a file is in the place of its folder.

    Raises:
        InputError: naming the first of them.
    """
    for path in map(Path, paths):
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the name of a file to write")
        above = next((folder for folder in path.parents if os.path.lexists(folder)), path.parent)
        if os.path.lexists(above) and not above.is_dir():
            raise InputError(f"{above} is not a folder but a file; give another output folder")


def discard(path: str | os.PathLike[str], *, keep: bool = False) -> None:
    """Delete a file of ours, if it is there.

    Args:
        path: the file.
        keep: rename one that is not ours to a name with its date, instead of refusing.

    Raises:
        InputError: it is not ours, or was changed since (see :func:`is_ours`).
    """
    path = Path(path)
    if keep and os.path.lexists(path) and not is_ours(path):
        set_aside(path)
    elif os.path.lexists(path):
        refuse_foreign([path])
        path.unlink()


def discard_partials(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Delete what killed processes began to write in ``folder`` under one of ``names``, and no other file."""
    wanted = set(names)
    for path in Path(folder).glob(f"{PARTIAL}*"):
        number, _, name = path.name.removeprefix(PARTIAL).partition("-")
        if number.isdecimal() and name in wanted and not _is_running(int(number)) and not path.is_symlink():
            path.unlink(missing_ok=True)


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


def record(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Enter files that are there, named relative to ``folder``, into its own record: we wrote them."""
    for name in names:
        _append(Path(folder), name, digest_of(Path(folder) / name), own=True)


def digest_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a file to a free name beside it that has its date; return that name."""
    kept = dated(path)
    path.rename(kept)
    return kept


def move(source: Path, target: Path) -> None:
    """Give a file another name in its folder; what is there and not ours is renamed to a name with its date."""
    if os.path.lexists(target) and not is_ours(target):
        set_aside(target)
    _append(target.parent, target.name, digest_of(source))
    os.replace(source, target)


def dated(path: Path, *, companion: Callable[[Path], Path] = Path) -> Path:
    """Return a name beside ``path`` that has the file's date and is free, as is that of its ``companion``."""
    stem = f"{path.stem}_{time.strftime('%Y%m%d-%H%M%S', time.localtime(path.lstat().st_mtime))}"
    names = (path.with_name(f"{stem}{again}{path.suffix}") for again in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not any(map(os.path.lexists, (name, companion(name)))))


def _append(folder: Path, name: str, digest: str, kind: str | None = None, *, own: bool = False) -> None:
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


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
