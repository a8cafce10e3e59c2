"""Find equal images of different patients, one of whom may be tested and the other trained on.

They may be right, as synthetic images are, so they are reported and not refused.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from data_prep.common.target import paths
from kvseg_monai.utils.records import digest_of

TRAILER = 8  # bytes at the end of a gzip file: check sum and size of what it holds
SHOWN = 3


def find_duplicates(records: Sequence[dict[str, Any]], target: Path) -> list[str]:
    """Return a sentence for each image that several patients have; images of one gray value do not count.

    Args:
        records: of the scans in ``target``.
        target: the folder of the preparation. Equal volumes are equal files there.
    """
    found = []
    for candidates in _shared(records, lambda record: _trailer(_image(record, target))):
        for group in _shared(candidates, lambda record: digest_of(_image(record, target))):
            if np.ptp(np.asanyarray(nib.load(_image(group[0], target)).dataobj)):
                names = [record["scan"] for record in group]
                rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                found.append(f"one image under the names of several patients: {', '.join(names[:SHOWN])}{rest}")
    return found


def _shared(
    records: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Hashable]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of one key, where they are of more than one patient."""
    groups: dict[Hashable, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    yield from (group for group in groups.values() if len({record["patient"] for record in group}) > 1)


def _image(record: dict[str, Any], target: Path) -> Path:
    return paths(record["scan"], target)[0]


def _trailer(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-min(TRAILER, path.stat().st_size), 2)
        return stream.read()
