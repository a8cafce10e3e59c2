"""Find the files below a folder, links included.

Links are followed, since a user or a tool of theirs made them: to any regular file, as git-annex and the caches of hubs
have them, and to a folder, once.

Devices, pipes and sockets are never opened: reading one may wait for ever. Hidden folders hold what belongs to a tool.
"""

import errno
import os
import stat
from collections import deque
from pathlib import Path

from kvseg_monai.dicom.skipped import Skipped, ending

MAY_BE_DICOM = ("", ".dcm", ".dicom", ".dic", ".ima")


class Search:
    """Search of a folder: its files, and what is left out.

    Args:
        root: folder or file; it must exist.

    Attributes:
        files: path and name, which is relative to ``root``, in the order of the names; a file has the name that the
            user knows, be it a link. One that has several is there once, by a name that is no link where it has one.
        skipped: what is no file, or cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.files: list[tuple[Path, str]] = []
        self.skipped: list[Skipped] = []
        self._root = root
        self._real, self._links = [root], deque[Path]()
        self._lost: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        while self._real or self._links:  # links come after what they may lead to
            self._visit(self._real.pop() if self._real else self._links.popleft())
        if self._lost:
            more = f" (and {len(self._lost) - 1} more)" if len(self._lost) > 1 else ""
            reason = f"a link{more} leads nowhere; fetch what it names, as `git annex get` does, or remove it"
            self.skipped.append(Skipped(self._lost[0], reason, fault=True))
        self.files.sort(key=lambda file: file[1])

    def _visit(self, path: Path) -> None:
        name = path.relative_to(self._root).as_posix() if path != self._root else path.name
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                self._visit_folder(path, name, found)
            elif not stat.S_ISREG(found.st_mode):
                self.skipped.append(Skipped(name, "a device, pipe or socket, which is not opened"))
            elif self._is_new(found, name):
                self.files.append((path, name))
        except OSError as error:
            self._cannot(path, name, error)

    def _visit_folder(self, path: Path, name: str, found: os.stat_result) -> None:
        if path != self._root and path.name.startswith("."):
            self.skipped.append(Skipped(f"{name}/", "hidden, not searched"))
            return
        if path.is_symlink():
            real = Path(os.path.realpath(path))
            inside = (Path(os.path.realpath(path.parent)), Path(os.path.realpath(self._root)))
            if any(real in (folder, *folder.parents) for folder in inside):
                self.skipped.append(Skipped(f"{name}/", "a link back to a folder that holds it, not followed"))
                return
        if not self._is_new(found, f"{name}/"):
            return
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                (self._links.appendleft if entry.is_symlink() else self._real.append)(path / entry.name)

    def _is_new(self, found: os.stat_result, name: str) -> bool:
        mark = (found.st_dev, found.st_ino)
        if found.st_ino and mark in self._seen:
            self.skipped.append(Skipped(name, "another name of what is read already"))
            return False
        self._seen.add(mark)
        return True

    def _cannot(self, path: Path, name: str, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            if ending(name) in MAY_BE_DICOM:
                self._lost.append(name)
            else:
                self.skipped.append(Skipped(name, "a link that leads nowhere"))
            return
        kind = "a folder that cannot be read" if path.is_dir() else "cannot be read"
        self.skipped.append(Skipped(name, f"{kind} ({error.strerror or type(error).__name__})", fault=True))
