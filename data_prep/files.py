"""Files that are there completely or not at all: written beside their place, then moved into it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step; a reader, or a run after a crash, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; the leading dot keeps what a crash leaves out of every listing.
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON in one step."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; ``None`` if it is absent or unreadable, which callers treat as "not ours"."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def fingerprint(*parts: bytes | str) -> str:
    """Hash ``parts`` in order; a separator keeps ``("ab", "c")`` and ``("a", "bc")`` apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()
