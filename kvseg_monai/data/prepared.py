"""Volumes prepared for training and kept in memory: when they are checked, or when they are first needed."""

from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Any

from monai.data import CacheDataset
from monai.transforms import Compose, RandomizableTrait, Transform

from kvseg_monai.data.dataset import Case


class PreparedCases(list[Case]):
    """Cases, and what was made of them when they were checked.

    Args:
        cases: the cases.
        prepared: per case the result of :func:`prepare_case`, or None.
    """

    def __init__(self, cases: Iterable[Case], prepared: Sequence[dict[str, Any] | None]) -> None:
        super().__init__(cases)
        self.prepared = list(prepared)


def prepare_case(transform: Compose, case: Case) -> Any:
    """Return a case after all that ``transform`` does before chance enters, as MONAI's ``CacheDataset`` keeps it."""
    return transform(case, end=transform.get_index_of_first(_is_random), threading=True)


def _is_random(transform: Callable[..., Any]) -> bool:
    return isinstance(transform, RandomizableTrait) or not isinstance(transform, Transform)


class VolumeDataset(CacheDataset):
    """MONAI's ``CacheDataset`` that takes over what was made of its cases when they were checked, and copies nothing.

    The random transforms must leave the prepared volumes as they are, as those do that draw slices from them.

    Args:
        data: the cases; of :class:`PreparedCases` those that are prepared are not read again.
        transform: of a case.
        cache_rate: share of the cases that are kept in memory, from the first on.
        num_workers: threads that prepare the cases.
        runtime_cache: prepare each case when it is first asked for, in the process that asks, instead of all at once.
        move: is given the cases, once they are prepared and where all of them are kept, to move their volumes
            elsewhere; such as :class:`kvseg_monai.data.OnDevice`.
    """

    def __init__(
        self,
        data: Sequence[Case],
        transform: Compose,
        *,
        cache_rate: float = 1.0,
        num_workers: int = 2,
        runtime_cache: bool = False,
        move: Callable[[MutableSequence[Any]], None] | None = None,
    ) -> None:
        self.move = move
        self.at_first_use = runtime_cache
        options = {"cache_rate": cache_rate, "num_workers": num_workers}
        super().__init__(data, transform, copy_cache=False, as_contiguous=False, **options)

    def set_data(self, data: Sequence[Case]) -> None:
        """Take other cases."""
        self.runtime_cache = getattr(data, "prepared", None) or self.at_first_use
        super().set_data(data)
        if self.move is not None and self.cache_num == len(data):
            self.move(self._cache)
