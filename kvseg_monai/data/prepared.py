"""Volumes prepared for training, when they are checked or first needed, and kept: in memory, the rest on disk."""

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, RandomizableTrait, Transform
from torch.utils.data import get_worker_info

from kvseg_monai.data.dataset import Case
from kvseg_monai.data.volume_store import MappedVolume, VolumeStore, size_of
from kvseg_monai.utils.cpu import hand_back_freed_memory
from kvseg_monai.utils.memory import free_memory
from kvseg_monai.utils.provenance import versions

_LEAST, _MOST = 2 * 10**9, 8 * 10**9  # bytes left to the network; preparing two volumes at a time takes the former


class PreparedCases(list[Case]):
    """Cases, and what was made of them when they were checked.

    Args:
        cases: the cases.
        prepared: per case what :meth:`VolumeKeeper.prepare` returns, or None.
        store: of those that are on disk, and of those that are still to come.
    """

    def __init__(
        self, cases: Iterable[Case], prepared: Sequence[dict[str, Any] | None], store: VolumeStore | None = None
    ) -> None:
        super().__init__(cases)
        self.prepared = list(prepared)
        self.store = store


def prepare_case(transform: Compose, case: Case) -> Any:
    """Return a case after all that ``transform`` does before chance enters, as MONAI's ``CacheDataset`` keeps it."""
    return transform(case, end=transform.get_index_of_first(_is_random), threading=True)


def _is_random(transform: Callable[..., Any]) -> bool:
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)


class VolumeKeeper:
    """Prepares cases, and keeps them in memory while it lasts and in a store on disk from then on.

    A volume stays in memory if, with it, more is still free than the network is to have: half of what is free now, but
    2 to 8 GB, the latter for each process that trains on this machine. What the store holds is not prepared again.

    Args:
        transform: of a case.
        cases: those that may come.
        store: for what does not fit into memory.
        expected: number of cases that will come, to foresee how much disk they take.
        free_memory: says how many bytes this process may still take, None where that is unknown: then all stays in
            memory.
    """

    def __init__(
        self,
        transform: Compose,
        cases: Iterable[Case],
        *,
        store: VolumeStore,
        expected: int,
        free_memory: Callable[[], int | None] = free_memory,
    ) -> None:
        self.transform, self.store, self.expected, self.free_memory = transform, store, expected, free_memory
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # by torchrun; each takes its share
        self.reserve = min(max((free_memory() or 0) // 2, _LEAST), _MOST * processes)
        self._preparation = _preparation(transform)
        self._counting = threading.Lock()
        store.claim(map(self._key, cases))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process needs, which keeps nothing itself."""
        return {**self.__dict__, "_counting": None}

    def prepare(self, case: Case) -> Any:
        """Return a case, prepared.

        Raises:
            StoreError: it does not fit into memory, and not on the disk either.
        """
        key = self._key(case)
        volume = self.store.find(key)
        if volume is None:
            volume = prepare_case(self.transform, case)
        if get_worker_info() is not None:
            return volume
        with self._counting:
            self.expected -= 1
            following = max(self.expected, 0)
        if isinstance(volume, MappedVolume) or not isinstance(volume, dict) or self._fits():
            return volume
        return self.store.put(key, volume, expected=size_of(volume) * (1 + following))

    def _fits(self) -> bool:
        if self._has_room():
            return True
        hand_back_freed_memory()  # preparing a volume takes much more than it, which the process holds when it is freed
        return self._has_room()

    def _has_room(self) -> bool:
        free = self.free_memory()
        return free is None or free > self.reserve

    def _key(self, case: Case) -> str:
        content = json.dumps([self._preparation, _signature(case)], sort_keys=True, default=repr)
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _preparation(transform: Compose) -> str:
    """Return a name for what a transform makes of a case, the same in each process that does the same."""
    end = transform.get_index_of_first(_is_random)
    try:
        return pickle_hashing([versions(), transform.transforms[:end]]).decode()
    except Exception:  # pickle's errors are of many kinds
        return uuid.uuid4().hex  # nobody else's


def _signature(case: Any) -> Any:
    """Return a case with size and time of each file that it names."""
    if isinstance(case, dict):
        return {str(key): _signature(value) for key, value in case.items()}
    if isinstance(case, list | tuple):
        return [_signature(value) for value in case]
    if isinstance(case, str | os.PathLike) and os.path.exists(case):
        path = Path(case)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return [str(path.absolute()), *([str(file), *_state(file)] for file in files)]
    return case


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class VolumeDataset(CacheDataset):
    """MONAI's ``CacheDataset`` that takes over what was made of its cases when they were checked, and copies nothing.

    What does not fit into memory is kept on disk, see :class:`VolumeKeeper`. The random transforms must leave the
    prepared volumes as they are, as those do that draw slices from them.

    Args:
        data: the cases; of :class:`PreparedCases` those that are prepared are not read again.
        transform: of a case.
        cache_rate: share of the cases that are kept, from the first on.
        cache_dir: folder for what does not fit into memory, see :class:`VolumeStore`; :class:`PreparedCases` have one.
        num_workers: threads that prepare the cases.
        runtime_cache: prepare each case when it is first asked for, in the process that asks, instead of all at once.
            A worker process keeps them until it ends, and in memory.
        move: is given the cases, once they are prepared and where all of them are kept, to move their volumes
            elsewhere; such as :class:`kvseg_monai.data.OnDevice`.
        free_memory: see :class:`VolumeKeeper`.
    """

    def __init__(
        self,
        data: Sequence[Case],
        transform: Compose,
        *,
        cache_rate: float = 1.0,
        cache_dir: str | os.PathLike[str] | None = None,
        num_workers: int = 2,
        runtime_cache: bool = False,
        move: Callable[[MutableSequence[Any]], None] | None = None,
        free_memory: Callable[[], int | None] = free_memory,
    ) -> None:
        self.move = move
        self.at_first_use = runtime_cache
        self.cache_dir, self.free_memory = cache_dir, free_memory
        options = {"cache_rate": cache_rate, "num_workers": num_workers}
        super().__init__(data, transform, copy_cache=False, as_contiguous=False, **options)

    def set_data(self, data: Sequence[Case]) -> None:
        """Take other cases."""
        self.runtime_cache = getattr(data, "prepared", None) or self.at_first_use
        kept = data[: int(len(data) * self.set_rate)]
        self.keeper = VolumeKeeper(
            self.transform,
            kept,
            store=getattr(data, "store", None) or VolumeStore(self.cache_dir),
            expected=len(kept),
            free_memory=self.free_memory,
        )
        super().set_data(data)
        if self.move is not None and self.cache_num == len(data):
            self.move(self._cache)

    def _load_cache_item(self, idx: int) -> Any:
        return self.keeper.prepare(self.data[idx])
