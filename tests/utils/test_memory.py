"""Free memory is the least of what the machine has and what each control group allows; no file is no limit."""

from pathlib import Path

import pytest

from kvseg_monai.utils.memory import free_memory

MEMINFO = "MemTotal:       100 kB\nMemFree:  1 kB\nMemAvailable:   80 kB\nHugePages_Total:       0\n"
V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


def group(folder: str, limit: object, used: int, cached: str = "") -> dict[str, str]:
    old = folder.startswith(V1)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    contents = (str(limit), str(used), cached)
    return {f"{folder}/{name}": f"{text}\n" for name, text in zip((*names, "memory.stat"), contents, strict=True)}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"/proc/meminfo": MEMINFO}, 80 * 1024),
        ({"/proc/meminfo": MEMINFO, "/proc/self/cgroup": "0::/a/b\n"}, 80 * 1024),
        ({"/proc/self/cgroup": "0::/a/b\n", **group(f"{V2}/a/b", 900, 400)}, 500),
        ({"/proc/self/cgroup": "0::/a/b\n", **group(f"{V2}/a", 900, 400), **group(f"{V2}/a/b", "max", 300)}, 500),
        ({"/proc/self/cgroup": "0::/\n", **group(f"{V2}/unified", 900, 950)}, 0),
        (
            {
                "/proc/self/cgroup": "0::/a\n",
                **group(f"{V2}/a", 900, 400, "anon 100\nfile 300\ninactive_file 200\nactive_file 50"),
            },
            750,
        ),
        ({"/proc/self/cgroup": "0::/a\n", **group(f"{V2}/a", 900, 400), f"{V2}/a/memory.high": "500\n"}, 100),
        (
            {
                "/proc/self/cgroup": "5:cpu,memory:/x/y\n4:pids:/\n0::/\n",
                **group(V1, 800, 100),
                **group(f"{V1}/x/y", 700, 500, "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 40"),
            },
            290,
        ),
        ({"/proc/self/cgroup": "5:memory:/in/the/host\n", **group(V1, 800, 100)}, 700),
    ],
    ids=["not Linux", "machine", "no limit", "v2", "above", "mixed, full", "cache", "high", "v1", "container"],
)
def test_free_memory(files, free, tmp_path: Path):
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert free_memory(tmp_path) == free


def test_of_this_machine():
    free = free_memory()
    assert free is None or 1e6 < free < 1e14
