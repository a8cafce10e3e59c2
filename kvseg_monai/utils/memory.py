"""Memory that a process may still take: what the machine has, and what its control group allows."""

from collections.abc import Iterator
from pathlib import Path

_GROUPS = "sys/fs/cgroup"
_V1 = (["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_")  # limits, use, prefix in memory.stat
_V2 = (["memory.max", "memory.high"], "memory.current", "")


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process may still take; None where the system is not Linux and does not say.

    The least of what the machine has available and of what each control group leaves that the process is in (v1 or v2,
    the groups above included): its limit less its use. Files that the kernel only keeps in its cache, those that are
    mapped included, count as free, since it takes their memory back when somebody asks for it.

    Args:
        root: of the file system.
    """
    left = [_numbers(root / "proc/meminfo").get("MemAvailable", -1) * 1024, *_left_by_groups(root)]
    known = [number for number in left if number >= 0]
    return min(known) if known else None


def _left_by_groups(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for mount in ("", "unified"):
                yield from _left_by_levels(root / _GROUPS / mount, path, *_V2)
        elif "memory" in controllers.split(","):
            yield from _left_by_levels(root / _GROUPS / "memory", path, *_V1)


def _left_by_levels(mount: Path, path: str, limits: list[str], usage: str, prefix: str) -> Iterator[int]:
    """Yield what a group leaves, and those above it; one that a container does not show says nothing."""
    group = mount / path.lstrip("/")
    for level in (group, *group.parents):
        used, cached = _number(level / usage), _numbers(level / "memory.stat")
        if used is not None:
            own = max(used - sum(cached.get(f"{prefix}{kind}", 0) for kind in ("inactive_file", "active_file")), 0)
            known = (_number(level / name) for name in limits)
            yield from (max(limit - own, 0) for limit in known if limit is not None)
        if level == mount:
            return


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _numbers(path: Path) -> dict[str, int]:
    rows = ([*line.replace(":", "").split(), "", ""] for line in _lines(path))
    return {name: int(value) for name, value, *_ in rows if value.isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
