"""Prepared volumes on disk that are mapped into memory while they are used, for those that do not fit into it.

What is mapped from a file is not the process's own memory: the kernel takes it back when it is short, and reads it
again. A store is one folder, ``kvseg_monai_volumes-MACHINE-RANDOM``, with a file for each volume, named by a hash.
"""

import atexit
import hashlib
import json
import logging
import os
import platform
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from kvseg_monai.errors import InputError

logger = logging.getLogger(__name__)

PREFIX = "kvseg_monai_volumes-"
RECORD = "volumes.jsonl"
LOCK = "volumes.lock"
_HEADER = {"about": "volumes that kvseg_monai prepared for a training; delete the folder when no training runs"}
_PARTIAL = ".partial-"
_SPARE = 10**9  # bytes that stay free on the disk
GB = 1e9


class StoreError(InputError):
    """The disk cannot take the prepared volumes."""


class MappedVolume(dict[str, Any]):
    """Prepared volume whose tensors are mapped from a file; pickled, as for a worker process, it is the file's name.

    Whoever writes into its tensors changes neither the file nor what others see of it.
    """

    def __init__(self, path: str) -> None:
        # The store is a folder that its owner alone can write into, so that what is unpickled is what we wrote.
        super().__init__(torch.load(path, map_location="cpu", mmap=True, weights_only=False))
        self.path = path

    def __reduce__(self) -> tuple[type["MappedVolume"], tuple[str]]:
        return MappedVolume, (self.path,)


def default_cache_dir() -> Path:
    """Return the folder for what can be made again: ``kvseg_monai`` below ``XDG_CACHE_HOME``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvseg_monai"


def free_disk(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not exist."""
    return shutil.disk_usage(next(above for above in (folder, *folder.parents) if above.exists())).free


class VolumeStore:
    """Prepared volumes in a folder of this process alone, which goes when the process ends.

    A training's volumes can take 10 GB, which nobody expects to find after it has ended, and which are prepared again
    in the time of an epoch or two: so the folder goes with the store, whether the training was finished, was
    interrupted or failed. A process that is killed leaves it. The next training on this machine that would make one of
    the same volumes takes it over and prepares only what is missing; any other removes it. A folder that a running
    process holds, by a lock, is neither taken over nor removed, nor is one of another machine, since not every network
    drive keeps locks between machines.

    Nothing is made before the first volume comes. A volume is written beside its name, entered into the folder's record
    with its size and time, and renamed: what is half-written is never read. Only what the record lists is removed.

    Args:
        cache_dir: the folder to make it in; None for :func:`default_cache_dir`.
        free_disk: says how many bytes are free on the disk of a folder.
    """

    def __init__(
        self, cache_dir: str | os.PathLike[str] | None = None, *, free_disk: Callable[[Path], int] = free_disk
    ) -> None:
        self.parent = (Path(cache_dir) if cache_dir else default_cache_dir()).absolute()
        self.folder: Path | None = None
        self.free_disk = free_disk
        self._there: set[str] = set()  # names of the volumes
        self._writing = threading.Lock()

    def __reduce__(self) -> tuple[type["VolumeStore"], tuple[Path]]:
        """Return what a worker process needs, which stores nothing."""
        return VolumeStore, (self.parent,)

    def claim(self, keys: Iterable[str]) -> None:
        """Take over what a killed process left, if one of ``keys`` is in it, and remove what others that were left."""
        wanted = {_name(key) for key in keys}
        for folder in sorted(self.parent.glob(f"{_prefix()}*")):
            lock = _lock(folder) if folder != self.folder and _is_store(folder) else None
            if lock is None:
                continue
            _discard_partials(folder)
            volumes = dict(_volumes(folder))
            if self.folder is None and wanted & volumes.keys():
                self._own(folder, lock)
                self._there.update(volumes)
                logger.info(
                    "took over %d prepared volumes (%.2f GB) that a killed run left in %s; removed when this one ends",
                    *(len(volumes), sum(volumes.values()) / GB, folder),
                )
            else:
                _remove(folder, lock, os.getpid())

    def find(self, key: str) -> MappedVolume | None:
        """Return a volume, None where there is none."""
        return MappedVolume(str(self.folder / _name(key))) if self.folder and _name(key) in self._there else None

    def put(self, key: str, volume: dict[str, Any], *, expected: int = 0) -> MappedVolume:
        """Write a volume; return it, mapped.

        Args:
            key: a name for it, a hash.
            volume: tensors and what else belongs to them.
            expected: bytes of this one and of those that will follow, as far as known.

        Raises:
            StoreError: the disk has too little space, or cannot be written.
        """
        try:
            with self._writing:
                folder = self.folder or self._make(max(expected, size_of(volume)))
                if _name(key) not in self._there:  # as a case that is listed twice
                    self._require(folder, size_of(volume))
                    _write(folder, _name(key), volume)
                    self._there.add(_name(key))
        except (OSError, RuntimeError) as error:  # torch's writer knows only the latter
            raise _refusal(f"{self.folder or self.parent} cannot be written ({error})") from error
        return MappedVolume(str(folder / _name(key)))

    def _make(self, expected: int) -> Path:
        self._require(self.parent, expected)
        self.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=self.parent))  # for its owner alone, under a new name
        lock = _lock(folder)
        assert lock is not None
        _enter(folder, _HEADER)
        self._own(folder, lock)
        logger.info(
            "prepared volumes that do not fit into memory go to %s, about %.2f GB; the folder is removed when the "
            "training ends (of one that was killed: by the next), another place is --cache_dir, none --cache_rate 0",
            *(folder, expected / GB),
        )
        return folder

    def _own(self, folder: Path, lock: FileLock) -> None:
        self.folder = folder
        self.remove = weakref.finalize(self, _remove, folder, lock, os.getpid())
        atexit.register(self.remove)  # before filelock gives back the locks, as it would come first otherwise

    def _require(self, folder: Path, size: int) -> None:
        free = self.free_disk(folder)
        if free - _SPARE < size:
            needed = (size + _SPARE) / GB
            raise _refusal(f"{folder} has {free / GB:.2f} GB free, and about {needed:.2f} GB are needed")


def size_of(volume: dict[str, Any]) -> int:
    """Return the bytes of a volume's tensors."""
    return sum(value.nbytes for value in volume.values() if isinstance(value, Tensor))


def _refusal(reason: str) -> StoreError:
    return StoreError(
        f"the prepared volumes do not fit into memory, and {reason}; name another folder by --cache_dir, or prepare "
        "volumes anew each time they are used by --cache_rate 0"
    )


def _name(key: str) -> str:
    return f"{key}.pt"


def _prefix() -> str:
    return f"{PREFIX}{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def _lock(folder: Path) -> FileLock | None:
    """Lock a store; return None where another process holds it, or has just removed it."""
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return None
    return lock


def _is_store(folder: Path) -> bool:
    """Return whether a folder is a store that we made and that nobody else can write into."""
    try:
        status = folder.lstat()
        private = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
        return stat.S_ISDIR(status.st_mode) and private and next(_entries(folder), None) == _HEADER
    except OSError:
        return False


def _write(folder: Path, name: str, volume: dict[str, Any]) -> None:
    temporary = folder / f"{_PARTIAL}{name}"
    if os.path.lexists(folder / name):
        raise FileExistsError(f"{name} is there and was not written by kvseg_monai")
    _enter(folder, {"begun": name})
    with temporary.open("xb") as stream:
        torch.save({key: _compact(value) for key, value in volume.items()}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    status = temporary.stat()
    _enter(folder, {"file": name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns})
    os.replace(temporary, folder / name)


def _compact(value: Any) -> Any:
    """Return a tensor that has its memory for itself, since all of it would be written."""
    shares = isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes
    return value.clone() if shares else value


def _enter(folder: Path, entry: dict[str, Any]) -> None:
    stream = os.open(folder / RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(stream, f"{json.dumps(entry)}\n".encode())  # in one piece: several threads write
    finally:
        os.close(stream)


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a store's record, without one that a crash cut off."""
    path = folder / RECORD
    if path.is_symlink() or not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def _volumes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size of each volume that is there whole, as it was written."""
    for entry in _entries(folder):
        if "file" in entry:
            with suppress(OSError):
                status = (folder / entry["file"]).lstat()
                if (status.st_size, status.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"]):
                    yield entry["file"], status.st_size


def _discard_partials(folder: Path) -> None:
    for entry in _entries(folder):
        if "begun" in entry:
            (folder / f"{_PARTIAL}{entry['begun']}").unlink(missing_ok=True)


def _remove(folder: Path, lock: FileLock, process: int) -> None:
    """Delete a store that this process has locked; what is not ours in it stays, and so does then the folder."""
    if os.getpid() != process:  # a fork ends, not the owner
        return
    with suppress(OSError):  # one that cannot be removed, as where Windows still maps its files, is left to the next
        _discard_partials(folder)
        for name in dict(_volumes(folder)):
            (folder / name).unlink()
        (folder / RECORD).unlink()
        with suppress(OSError):  # Windows deletes no file that is open
            (folder / LOCK).unlink()
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    lock.release()
