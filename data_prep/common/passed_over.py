"""Files of a source that are not taken, counted: files by kind, so that nobody misses them unawares."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def kind_of(path: Path, name: str, ending: str | None) -> str:
    """Say what a file is that no image or mask can be; empty for one that can.

    Args:
        path: the file.
        name: its path below the folder that is searched, with ``/``.
        ending: that of the images, where the name has it.
    """
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    if not name.isascii() and name != name.encode(errors="replace").decode():
        return "whose name is not in UTF-8"
    if ending:
        return ""
    if not path.is_file():
        return "linked to nothing" if path.is_symlink() else "not regular"
    return f"*{path.suffix}" if path.suffix else "without ending"


def counted(kinds: Iterable[str]) -> str:
    """Count files by kind, as in ``2 *.zip, 3 hidden``; "" for none."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))


def remarks_on(folders: str, kinds: Iterable[str]) -> list[str]:
    """Return the sentence on files that were passed over, in a list; an empty one where there are none."""
    found = counted(kinds)
    return [f"passed over in {folders}: {found}"] if found else []
