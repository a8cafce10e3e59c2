"""Files that are there whole or not at all: written beside their place, then moved into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvseg_monai.errors import InputError

PARTIAL = ".partial-"


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what the block writes there takes the place of ``path`` when it is done.

    The folder is made where it is missing. If the block fails, nothing is left behind and an earlier file stays.

    Raises:
        InputError: ``path`` is a folder, or one of its parents is a file.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent} is not a folder but a file; give another output folder") from None
    # The dot hides what a crash leaves, the process id keeps two writers apart, and writers choose by the suffixes.
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write text as UTF-8, whole or not at all (see :func:`whole_file`); return the path."""
    return write_bytes(path, text.encode())  # bytes: the same line ends on every system


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file whole or not at all (see :func:`whole_file`); return the path."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)
