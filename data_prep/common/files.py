"""JSON files of the data preparation, fingerprints of what they were made from, and what a full disk says."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import write_text


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; ``None`` if it is absent or unreadable, which callers treat as "not ours"."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None  # a FIFO would wait for ever
    except (OSError, ValueError, RecursionError):
        return None


def files_below(folder: Path) -> list[Path]:
    """Return what lies below a folder in the order of names: files of every kind, links being followed.

    Folders themselves are left out, but for those that are not entered: hidden ones, and links that lead in a circle.
    """
    return sorted(_walk(folder, frozenset()))


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield what lies below; ``above`` are the folders, without links, that led here."""
    above |= {Path(os.path.realpath(folder))}
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith(".") and not (path.is_symlink() and _leads_back(path, above)):
            yield from _walk(path, above)
        else:
            yield path


def _leads_back(link: Path, above: frozenset[Path]) -> bool:
    real = Path(os.path.realpath(link))
    return any(real == one or real in one.parents for one in above)


def fingerprint(*parts: bytes | str) -> str:
    """Hash ``parts`` in order; a separator keeps ``("ab", "c")`` and ``("a", "bc")`` apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


def file_state(path: Path) -> str:
    """Return the size and time of a file: what changes when it is written anew."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


@contextmanager
def system_errors_as_input_errors(target: Path) -> Iterator[None]:
    """Raise :class:`InputError` for what the system refuses; it is about ``target`` where it names no file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or target} failed: {error.strerror}; correct that, run again") from error
