"""Refuse to write where is read."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvseg_monai.errors import InputError


def refuse_overlap(
    *,
    sources: Mapping[str, str | os.PathLike[str] | None],
    targets: Mapping[str, str | os.PathLike[str] | None],
) -> None:
    """Refuse to write where is read: a source and a target that are the same, lie in each other, or link to each other.

    A source that is a file may lie in a folder that is written into, as weights do; what is written there never takes
    its place (see :func:`atomic_write`).

    Args:
        sources: folders or files that are read, by the name of their option; None for one that is not given.
        targets: folders or files that are written, or into which is written; they need not exist.

    Raises:
        InputError: naming both.
    """
    for target_name, target in targets.items():
        for source_name, source in sources.items():
            if source is None or target is None:
                continue
            relation = _relation(Path(source), Path(target))
            if relation:
                raise InputError(
                    f"--{target_name} {target} {relation} --{source_name} {source}; what is written must lie apart "
                    f"from what is read, so that nothing of yours is replaced: give another --{target_name}"
                )


def _relation(source: Path, target: Path) -> str | None:
    """Say how a target lies to a source where it may not, None where it may."""
    real_source, real_target = (Path(os.path.realpath(path)) for path in (source, target))
    if real_source == real_target:
        return "is the same as"
    if real_source in real_target.parents:
        return "lies in"
    if real_target in real_source.parents and real_source.is_dir():
        return "contains"
    if any(_meet(link, real_source) for link in _links_of(real_target)):
        return "holds a link into"
    if any(_meet(link, real_target) for link in _links_of(real_source, follow=True)):
        return "is linked to from"  # what holds the target would be read with it
    return None


def _meet(one: Path, other: Path) -> bool:
    """Return whether two places are the same, or one lies in the other."""
    return one == other or one in other.parents or other in one.parents


def _links_of(folder: Path, *, follow: bool = False) -> Iterator[Path]:
    """Yield where the links below a folder lead to; with ``follow``, those below the folders that they lead to too."""
    seen = {str(folder)}
    for place, folders, files in os.walk(folder, followlinks=follow):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            if os.path.islink(path):
                real = os.path.realpath(path)
                yield Path(real)
                if name in folders and real in seen:
                    folders.remove(name)
                seen.add(real)
