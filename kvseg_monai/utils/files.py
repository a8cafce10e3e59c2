"""Files that are there whole or not at all, and that never take the place of what somebody else wrote.

What is ours, and so may be replaced, is what the record of its folder lists (see :mod:`kvseg_monai.utils.records`).
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import add_entry, digest_of, is_ours, only_ours, recorded

PARTIAL = ".partial-"


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, keep: bool = False, kind: str | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what the block writes there takes the place of ``path`` when it is done.

    The folder is made where it is missing. If the block fails, nothing is left behind and an earlier file stays.

    Args:
        path: the file to write.
        keep: rename a file that is there and not ours to a name with its date, instead of refusing.
        kind: what the file is, for the record (:func:`kvseg_monai.utils.records.recorded_as`).

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
            add_entry(path.parent, path.name, digest, kind)
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
        InputError: it is not ours, or was changed since (see :func:`kvseg_monai.utils.records.is_ours`).
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


def set_aside(path: Path) -> Path:
    """Rename a file to a free name beside it that has its date; return that name."""
    kept = dated(path)
    path.rename(kept)
    return kept


def move(source: Path, target: Path) -> None:
    """Give a file another name in its folder; what is there and not ours is renamed to a name with its date."""
    if os.path.lexists(target) and not is_ours(target):
        set_aside(target)
    add_entry(target.parent, target.name, digest_of(source))
    os.replace(source, target)


def dated(path: Path, *, companion: Callable[[Path], Path] = Path) -> Path:
    """Return a name beside ``path`` that has the file's date and is free, as is that of its ``companion``."""
    stem = f"{path.stem}_{time.strftime('%Y%m%d-%H%M%S', time.localtime(path.lstat().st_mtime))}"
    names = (path.with_name(f"{stem}{again}{path.suffix}") for again in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not any(map(os.path.lexists, (name, companion(name)))))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
