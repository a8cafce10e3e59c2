"""A training on as many scans as UW-Madison has, in 4 GB: it goes through, and the smallest step costs hardly more.

What a step costs more than in memory is the kernel's work to read again what it took back: nothing where its cache
holds the mapped files, and in 4 GB a few ms, less than a tenth of the step of the smallest network on a small canvas.

``KVSEG_SCANS``, ``KVSEG_DISTINCT`` and ``KVSEG_GB`` make it smaller. The scans are a PHANTOM; a few distinct ones lie
under all names, as copies, and each is read, prepared and kept for itself.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from ignite.engine import Events
from monai.bundle import create_workflow
from support import BUNDLES, ROOT, config

from kvseg_monai.data import MappedVolume, VolumeDataset
from kvseg_monai.data.volume_store import size_of

SCANS = int(os.environ.get("KVSEG_SCANS", 274))
DISTINCT = int(os.environ.get("KVSEG_DISTINCT", 40))
LIMIT = float(os.environ.get("KVSEG_GB", 4)) * 1e9
VOLUMES_PER_STEP = 4
SMALL = {"network_def#size": "tiny", "image_size": [64, 64], "num_workers": 0, "val_interval": 4, "max_epochs": 3}


@pytest.fixture
def group():
    """Words to put before a command so that it runs within the limit."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    for mount, limit in ((old, "memory.limit_in_bytes"), (new, "memory.max")):
        folder = mount / f"kvseg_monai-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit).write_text(str(int(LIMIT)))
        except OSError:  # not there, not root, or without this controller
            if folder.is_dir():
                folder.rmdir()
            continue
        yield ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
        folder.rmdir()
        return
    words = ["systemd-run", "--user", "--scope", "--quiet", "-p", f"MemoryMax={int(LIMIT)}", "-p", "MemorySwapMax=0"]
    if not shutil.which(words[0]) or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("no control group can be made: neither as root nor by systemd-run --user")
    yield words


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A prepared phantom of so many names, of which a tenth are for validation."""
    run = [sys.executable, "-m"]
    raw, data = tmp_path / "raw", tmp_path / "data"
    made = os.environ.get("KVSEG_PHANTOM")  # one that is prepared already, which is only read
    if made:
        data = Path(made)
    else:
        subprocess.run([*run, "data_prep.phantom", "--target", raw, "--scans", str(DISTINCT)], check=True, cwd=ROOT)
        fractions = ["--validation-fraction", "0", "--test-fraction", "0"]
        words = ["data_prep.uw_madison", "--source", raw, "--target", data, *fractions]
        subprocess.run([*run, *words], check=True, cwd=ROOT)
    datalist = json.loads((data / "datalist.json").read_text())
    distinct = [entry for section in ("training", "validation") for entry in datalist[section]]
    entries = []
    for number in range(SCANS):
        entry = {"patient": f"patient{number}"}
        for kind in ("image", "label"):
            entry[kind] = f"{kind}s/scan{number}.nii.gz"
            (tmp_path / "all" / f"{kind}s").mkdir(parents=True, exist_ok=True)
            shutil.copy(data / distinct[number % len(distinct)][kind], tmp_path / "all" / entry[kind])
        entries.append(entry)
    lists = {"training": entries[SCANS // 10 :], "validation": entries[: SCANS // 10], "test": []}
    (tmp_path / "all" / "datalist.json").write_text(json.dumps({"labels": datalist["labels"], **lists}))
    return tmp_path / "all"


def train(data: Path, folder: Path, free_memory: str | None) -> dict:
    """Train three short epochs; return what a step cost in each, in ms, and where the volumes lay."""
    policy = {"cache_dir": str(folder / "cache")} | ({"cases#free_memory": free_memory} if free_memory else {})
    places = {"bundle_root": str(folder), "dataset_dir": str(data)}
    began = time.process_time(), time.perf_counter()
    made = create_workflow(config_file=config(BUNDLES[1], "train"), workflow_type="train", **places, **SMALL, **policy)
    trainer = made.parser.get_parsed_content("train#trainer")
    prepared = time.process_time() - began[0], time.perf_counter() - began[1]
    draws = _timed_draws(made.parser.get_parsed_content("train#dataset"))
    ends = []
    for event in (Events.EPOCH_STARTED, Events.ITERATION_COMPLETED):
        trainer.add_event_handler(event, lambda engine: ends.append((engine.state.epoch, *_clocks())))
    made.run()
    steps = [
        (epoch, *(1000 * (late - early) for early, late in zip(before, after, strict=True)))
        for (earlier, *before), (epoch, *after) in pairwise(ends)
        if earlier == epoch
    ]
    volumes = made.parser.get_parsed_content("train#dataset")._cache
    on_disk = [volume for volume in volumes if isinstance(volume, MappedVolume)]
    return {
        "prepared_s": {"cpu": prepared[0], "wall": prepared[1]},
        "volumes": len(volumes),
        "on_disk": len(on_disk),
        "disk_gb": sum(Path(volume.path).stat().st_size for volume in on_disk) / 1e9,
        "memory_gb": sum(map(size_of, volumes)) / 1e9 - sum(map(size_of, on_disk)) / 1e9,
        "own_gb": _own(),
        "steps": len(steps),
        "draw_cpu_ms": {str(kind): round(statistics.mean(times), 2) for kind, times in draws.items() if times},
        "cpu_ms": [round(statistics.mean(c for e, c, _ in steps if e == epoch), 2) for epoch in (1, 2, 3)],
        "wall_ms": [round(statistics.mean(w for e, _, w in steps if e == epoch), 2) for epoch in (1, 2, 3)],
    }


def _timed_draws(dataset: VolumeDataset) -> dict[str, list[float]]:
    """Where a volume lies -> CPU time of each draw of slices from it, in ms, from the second epoch on."""
    times: dict[str, list[float]] = {"memory": [], "mapped": []}
    load, drawn = dataset._transform, Counter()

    def timed(index: int) -> list:
        began = time.process_time()
        slices = load(index)
        if drawn[index]:
            kind = "mapped" if isinstance(dataset._cache[index], MappedVolume) else "memory"
            times[kind].append(1000 * (time.process_time() - began))
        drawn[index] += 1
        return slices

    dataset._transform = timed
    return times


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _own() -> float:
    """GB of memory of this process's own, without what is mapped from files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024 / 1e9


@pytest.mark.slow
def test_a_step_costs_the_same(group, scans, tmp_path):
    results = {}
    for name, before, free in (("within the limit", group, ""), ("all in memory", [], "$lambda: 10**12")):
        command = [*before, sys.executable, __file__, str(scans), str(tmp_path / name.replace(" ", "_")), free]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr[-3000:]
        results[name] = json.loads(ran.stdout.splitlines()[-1])
        print(name, json.dumps(results[name]))
    limited, free = results.values()
    assert limited["on_disk"] > 0
    assert limited["memory_gb"] > 0
    assert free["on_disk"] == 0
    draws = limited["draw_cpu_ms"]  # within one process: other load on the machine raises both
    more = (draws["mapped"] - draws["memory"]) * VOLUMES_PER_STEP * limited["on_disk"] / limited["volumes"]
    assert more < 0.1 * min(limited["cpu_ms"][1:])
    assert list(tmp_path.glob("*/cache/*")) == []


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None)))
