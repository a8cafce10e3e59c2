"""What memory has no room for lies on disk for the time of the training, is drawn from alike, and nothing else goes."""

import gc
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from monai.bundle import create_workflow
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, Transform
from support import BUNDLES, config

from kvseg_monai.data import MappedVolume, PreparedCases, StoreError, VolumeDataset, VolumeKeeper, VolumeStore
from kvseg_monai.data.volume_store import LOCK, PREFIX, RECORD, default_cache_dir
from kvseg_monai.errors import InputError
from kvseg_monai.handlers import valid_cases
from kvseg_monai.transforms import IndexSlicesd, RandSlicesd, collate_slices

CASES = [{"number": number, "case": f"/data/Jane Doe/{number}.nii.gz"} for number in range(4)]


class Make(Transform):
    """A volume of 8 slices that is a function of the case's number."""

    def __call__(self, case: Mapping) -> dict:
        made = torch.Generator().manual_seed(case["number"])
        image = torch.rand(1, 20, 16, 8, generator=made)
        return {"image": image.half(), "label": (3 * image).byte(), "case": case["case"]}


class Count(Transform):
    """As it was, counted."""

    def __init__(self, counted: list) -> None:
        self.counted = counted

    def __call__(self, case: Mapping) -> Mapping:
        self.counted.append(case["number"])
        return case

    def __getstate__(self) -> dict:
        return {}


def drawing(*before: Transform) -> Compose:
    both = ["image", "label"]
    return Compose([*before, Make(), IndexSlicesd(both), RandSlicesd(both, num_samples=3)])


def none_left() -> int:
    return 0


def plenty() -> int:
    return 10**12


def keeper(folder: Path, transform: Compose | None = None, free: Callable = none_left, cases=CASES) -> VolumeKeeper:
    store = VolumeStore(folder)
    return VolumeKeeper(transform or drawing(), cases, store=store, expected=len(cases), free_memory=free)


def same(one: Mapping, other: Mapping) -> bool:
    return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    return all(map(equal, one, other)) if isinstance(one, list) else one == other


def in_a_process(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Run a script after the imports of this file, with the cases kept on disk in ``folder``."""
    begin = f"from test_volume_store import *\nkept = keeper(Path({str(folder)!r}))\n"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", begin + script]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120)


KILLED = """
def cut(stream):
    os.ftruncate(stream, os.fstat(stream).st_size // 2)
    os.kill(os.getpid(), 9)
for case in CASES[:2]:
    kept.prepare(case)
os.fsync = cut
kept.prepare(CASES[2])
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A cache folder in which a process was killed while it wrote the third volume."""
    assert in_a_process(tmp_path / "cache", KILLED).returncode == -9
    return tmp_path / "cache"


class TestPolicy:
    """Memory first, while the network's share is free; then disk."""

    def test_memory_while_it_lasts(self, tmp_path):
        left = iter(
            [10, 7, 5.1, 5, 5, 4.9, 5.1]
        )  # GB, asked again after a no; the first is what there is at the beginning, half of it is the network's
        kept = keeper(tmp_path / "cache", free=lambda: int(next(left) * 1e9))
        assert [isinstance(kept.prepare(case), MappedVolume) for case in CASES] == [False, False, True, False]

    def test_the_network_gets_two_to_eight_gigabytes(self, tmp_path, monkeypatch):
        assert keeper(tmp_path, free=lambda: 3 * 10**9).reserve == 2e9
        assert keeper(tmp_path, free=plenty).reserve == 8e9
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert keeper(tmp_path, free=plenty).reserve == 32e9

    @pytest.mark.parametrize("free", [plenty, lambda: None], ids=["room", "unknown"])
    def test_what_fits_makes_no_folder(self, free, tmp_path):
        kept = keeper(tmp_path / "cache", free=free)
        assert not any(isinstance(kept.prepare(case), MappedVolume) for case in CASES)
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize("at_first_use", [False, True])
    @pytest.mark.parametrize(("rate", "on_disk"), [(1.0, 4), (0.5, 2), (0.0, 0)])
    def test_the_rate_says_how_many_are_kept_anywhere(self, rate, on_disk, at_first_use, tmp_path):
        options = {"cache_rate": rate, "cache_dir": tmp_path, "runtime_cache": at_first_use, "free_memory": none_left}
        dataset = VolumeDataset(CASES, drawing(), **options)
        for number in range(4):
            assert len(dataset[number]) == 3
        assert sum(isinstance(volume, MappedVolume) for volume in dataset._cache) == on_disk
        assert len(list(tmp_path.glob("*/*.pt"))) == on_disk

    def test_default_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_cache_dir() == tmp_path / "kvseg_monai"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert default_cache_dir() == Path.home() / ".cache" / "kvseg_monai"


def batches(folder: Path, free: Callable, **options) -> list[dict]:
    """Two epochs of a data set that is kept where ``free`` says."""
    transform = drawing()
    kept = keeper(folder, transform, free=free)
    cases = PreparedCases(CASES, [kept.prepare(case) for case in CASES], kept.store)
    dataset = VolumeDataset(cases, transform, free_memory=free)
    assert isinstance(dataset._cache[3], MappedVolume) == (free is none_left)
    torch.manual_seed(0)
    transform.set_random_state(0)
    loader = DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=collate_slices, **options)
    drawn = [batch for _ in range(2) for batch in loader]
    assert len(list(folder.glob("*/*.pt"))) == (4 if free is none_left else 0)  # workers have ended, the store stays
    return drawn


class TestBatches:
    """What is drawn does not depend on where the volumes lie."""

    @pytest.mark.parametrize(
        "options",
        [{"num_workers": 0}, *({"num_workers": 2, "multiprocessing_context": how} for how in ("fork", "spawn"))],
        ids=["main", "fork", "spawn"],
    )
    def test_identical_batches(self, options, tmp_path):
        memory, disk = (batches(tmp_path, free, **options) for free in (plenty, none_left))
        assert len(memory) == 4
        assert all(map(same, memory, disk))

    def test_identical_volumes_and_pickled_as_a_name(self, tmp_path):
        disk, memory = keeper(tmp_path), keeper(tmp_path, free=plenty)
        for case in CASES:
            mapped = disk.prepare(case)
            assert same(mapped, memory.prepare(case))
            pickled = pickle.dumps(mapped)
            assert len(pickled) < 1000 < 8 * 20 * 16
            assert same(pickle.loads(pickled), mapped)

    def test_metadata_stay_with_a_volume(self, tmp_path):
        def with_metadata(case: dict) -> dict:
            affine = torch.diag(torch.tensor([2.0, 2, 3, 1]))
            return {"image": MetaTensor(torch.ones(1, 4, 4, 2), affine=affine, meta={"filename_or_obj": "a"})}

        kept = keeper(tmp_path, Compose([Make(), _Apply(with_metadata)]))
        image = kept.prepare(CASES[0])["image"]
        assert isinstance(image, MetaTensor)
        assert image.affine.diag().tolist() == [2, 2, 3, 1]
        assert image.meta["filename_or_obj"] == "a"

    def test_only_the_volume_is_written_of_what_it_is_a_part(self, tmp_path):
        volume = VolumeStore(tmp_path)
        mapped = volume.put("a", {"image": torch.arange(10**6)[:10]})
        assert mapped["image"].tolist() == list(range(10))
        assert Path(mapped.path).stat().st_size < 10**4

    def test_whoever_writes_into_a_volume_changes_it_for_himself(self, tmp_path):
        kept = keeper(tmp_path)
        kept.prepare(CASES[0])["image"].zero_()
        assert same(kept.prepare(CASES[0]), keeper(tmp_path, free=plenty).prepare(CASES[0]))

    def test_a_case_that_is_listed_twice(self, tmp_path):
        twice = [CASES[0], CASES[0]]
        dataset = VolumeDataset(twice, drawing(), cache_dir=tmp_path, free_memory=none_left)
        assert len(dataset[0]) == len(dataset[1]) == 3
        assert len(list(tmp_path.glob("*/*.pt"))) == 1


class _Apply(Transform):
    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, case: Mapping) -> dict:
        return self.function(case)


class TestEnd:
    """The store goes with its training, and a killed one's is taken over or removed."""

    @pytest.mark.parametrize("end", ["1 / 0", "os.kill(os.getpid(), 2); time.sleep(9)"], ids=["error", "Ctrl-C"])
    def test_nothing_is_left_when_a_process_ends(self, end, tmp_path):
        """Also after a fork of it has ended, which leaves all in place."""
        script = f"""
import time
for case in CASES: kept.prepare(case)
os.fork() or sys.exit()
os.wait()
print(len(list(kept.store.folder.iterdir())))
{end}
"""
        assert in_a_process(tmp_path, script).stdout == "6\n"
        assert list(tmp_path.iterdir()) == []

    def test_it_goes_with_the_data_set(self, tmp_path):
        dataset = VolumeDataset(CASES, drawing(), cache_dir=tmp_path, free_memory=none_left)
        assert len(list(tmp_path.glob("*/*.pt"))) == 4
        volume = dataset._cache[0]
        del dataset
        gc.collect()
        assert list(tmp_path.iterdir()) == []
        assert same(volume, keeper(tmp_path, free=plenty).prepare(CASES[0]))  # what is mapped is there as long as used

    def test_a_killed_run_is_gone_on_with(self, killed, caplog):
        (folder,) = killed.iterdir()
        assert len(list(folder.glob(".partial-*"))) == 1
        caplog.set_level(logging.INFO)
        counted: list = []
        kept = keeper(killed, drawing(), free=plenty)
        kept.transform = drawing(Count(counted))
        volumes = [kept.prepare(case) for case in CASES]
        assert kept.store.folder == folder
        assert counted == [2, 3]
        assert "took over 2 prepared volumes" in caplog.text
        assert all(map(same, volumes, map(keeper(killed / "other", free=plenty).prepare, CASES)))
        assert not list(folder.glob(".partial-*"))
        kept.store.remove()
        assert list(killed.iterdir()) == []

    def test_a_record_that_a_crash_cut_off(self, killed):
        (folder,) = killed.iterdir()
        with (folder / RECORD).open("a") as stream:
            stream.write('{"file": "00')
        kept = keeper(killed)
        assert all(map(same, map(kept.prepare, CASES), map(keeper(killed, free=plenty).prepare, CASES)))
        kept.store.remove()
        assert list(killed.iterdir()) == []

    def test_other_cases_or_another_preparation_take_nothing_over(self, killed, tmp_path):
        more = keeper(killed, Compose([Make(), IndexSlicesd(["image", "label"], label_key="label"), _Apply(dict)]))
        assert more.store.folder is None
        assert list(killed.iterdir()) == []

    def test_a_file_that_was_changed_since_is_prepared_again(self, tmp_path):
        path = tmp_path / "scan.nii.gz"
        keys = []
        for text in ("one", "other", "other"):
            path.write_text(text)
            keys.append(keeper(tmp_path / "cache")._key({"image": str(path), "number": 1}))
            os.utime(path, (1, 1))
        keys.append(keeper(tmp_path / "cache")._key({"image": str(path), "number": 1}))
        assert len(set(keys)) == 4

    def test_a_volume_that_was_changed_since_is_neither_read_nor_deleted(self, killed):
        volume = next(killed.glob("*/[0-9a-f]*.pt"))
        volume.write_bytes(b"mine")
        kept = keeper(killed, free=plenty)
        assert sum(isinstance(kept.prepare(case), MappedVolume) for case in CASES) == 1
        kept.store.remove()
        assert [path.read_bytes() for path in killed.glob("*/*")] == [b"mine"]


class TestCompany:
    """Two at once, and files of others."""

    def test_two_at_once_have_a_store_each(self, tmp_path):
        one = keeper(tmp_path)
        first = [one.prepare(case) for case in CASES]
        script = "made = [kept.prepare(case) for case in CASES]\nprint(kept.store.folder)"
        other = in_a_process(tmp_path, script).stdout.strip()
        assert Path(other).parent == tmp_path
        assert one.store.folder is not None
        assert one.store.folder != Path(other)
        assert list(tmp_path.iterdir()) == [one.store.folder]
        two = keeper(tmp_path)
        assert all(map(same, first, map(two.prepare, CASES)))
        assert two.store.folder != one.store.folder
        two.store.remove()
        assert all(one.store.find(one._key(case)) for case in CASES)

    def test_one_of_another_machine_is_left_alone(self, killed, monkeypatch):
        before = tree(killed)
        monkeypatch.setattr("platform.node", lambda: "another")
        assert keeper(killed).store.folder is None
        assert tree(killed) == before

    def test_foreign_files_are_left_alone(self, killed):
        (store,) = killed.iterdir()
        name = store.name
        (killed / "results.csv").write_text("mine")
        for folder in ("data", f"{name}x", f"{PREFIX}mine"):
            (killed / folder).mkdir()
            (killed / folder / "00.pt").write_text("mine")
        (killed / f"{name}y").symlink_to(killed / "data")
        (store / "notes.txt").write_text("mine")
        (store / ".partial-notes").write_text("mine")
        mine = {path: text for path, text in tree(killed).items() if text == "mine"}
        for case in ({"number": 9, "case": ""}, *CASES):
            kept = keeper(killed, cases=[case])
            kept.prepare(case)
            kept.store.remove()
        assert tree(killed) == {**mine, f"{name}y": "link"}

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners")
    def test_a_folder_that_others_can_write_into_is_not_trusted(self, killed):
        (store,) = killed.iterdir()
        assert store.stat().st_mode & 0o777 == 0o700
        store.chmod(0o777)
        before = tree(killed)
        assert keeper(killed).store.folder is None
        assert tree(killed) == before


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> content of each file."""
    return {
        str(path.relative_to(folder)): "link" if path.is_symlink() else path.read_bytes().decode("latin-1")
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


class TestDisk:
    """A disk that cannot take the volumes ends the training at once, with one sentence and nothing left behind."""

    def test_too_little_disk(self, tmp_path):
        store = VolumeStore(tmp_path / "cache", free_disk=lambda folder: 10**9)
        kept = VolumeKeeper(drawing(), CASES, store=store, expected=4, free_memory=none_left)
        with pytest.raises(
            StoreError, match=r"has 1\.00 GB free, and about 1\.00 GB are needed; name another .*--cache_"
        ):
            kept.prepare(CASES[0])
        assert not (tmp_path / "cache").exists()

    def test_it_is_foreseen_and_also_seen_when_it_comes(self, tmp_path):
        size = 3 * 20 * 16 * 8
        free = iter([10**9 + 4 * size - 1, 10**9 + 4 * size, 10**9 + size, 10**9 + size - 1])
        store = VolumeStore(tmp_path / "cache", free_disk=lambda folder: next(free))
        made = partial(VolumeKeeper, drawing(), CASES, store=store, expected=4, free_memory=none_left)
        with pytest.raises(StoreError, match="do not fit into memory"):
            made().prepare(CASES[0])
        kept = made()
        kept.prepare(CASES[0])
        with pytest.raises(StoreError, match="do not fit into memory"):
            kept.prepare(CASES[1])

    def test_a_write_that_fails(self, tmp_path):
        """As by a disk that is full all the same."""
        script = """
def full(stream):
    raise OSError(28, "No space left on device")
os.fsync = full
try:
    kept.prepare(CASES[0])
except StoreError as error:
    print(error)
"""
        assert "(Errno 28" in in_a_process(tmp_path, script).stdout.replace("[", "(")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "cache").write_text("mine")
        with pytest.raises(StoreError, match=r"cache cannot be written .* name another folder by --cache_dir"):
            keeper(tmp_path / "cache").prepare(CASES[0])
        assert (tmp_path / "cache").read_text() == "mine"

    def test_it_is_no_fault_of_a_case(self, tmp_path):
        (tmp_path / "cache").write_text("mine")
        options = {"transforms": [Make()], "cache_dir": tmp_path / "cache", "free_memory": none_left}
        with pytest.raises(InputError, match=r"^the prepared volumes do not fit into memory"):
            valid_cases({"training": CASES}, prepare=drawing(), skip=True, **options)


def test_a_training_is_the_same_and_says_once_where_its_volumes_lie(tmp_path, tiny_dataset, caplog, monkeypatch):
    """With validation, and without a name of a patient in the log or in the names of files."""
    monkeypatch.setattr(logging.getLogger("kvseg_monai"), "handlers", [caplog.handler])  # the bundle sets the root's
    scores, names = [], []
    for free in ("$lambda: 0", "$lambda: 10**12"):
        caplog.clear()
        options = {"network_def#size": "tiny", "image_size": [64, 64], "slices_at_once": 4, "num_workers": 0}
        places = {"bundle_root": str(tmp_path / free[-2:]), "dataset_dir": str(tiny_dataset)}
        policy = {"cache_dir": str(tmp_path / "cache"), "cases#free_memory": free, "validate#dataset#free_memory": free}
        files = {"config_file": config(BUNDLES[1], "train"), "workflow_type": "train"}
        made = create_workflow(**files, max_epochs=2, **places, **options, **policy)
        logging.getLogger("kvseg_monai").setLevel(logging.INFO)
        made.run()
        names.append(sorted(path.name for path in tmp_path.glob("cache/*/*")))
        evaluator = made.parser.get_parsed_content("validate#evaluator")
        scores.append((evaluator.state.metrics, made.parser.get_parsed_content("train#trainer").state.output))
        said = [record.getMessage() for record in caplog.records if "do not fit" in record.getMessage()]
        assert len(said) == (free == "$lambda: 0")
        assert not any("case" in line or "person" in line for line in said)
        del made, evaluator
        gc.collect()
    assert len(names[0]) == 4 + 2 + 2
    assert not any("case" in name or "person" in name for name in names[0])
    assert names[1] == []
    assert scores[0][0] == scores[1][0]
    assert str(scores[0][1]["loss"]) == str(scores[1][1]["loss"])
    assert list(tmp_path.glob("cache/*")) == []


def test_the_record_is_plain(tmp_path):
    kept = keeper(tmp_path)
    kept.prepare(CASES[0])
    assert kept.store.folder is not None
    lines = [json.loads(line) for line in (kept.store.folder / RECORD).read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["about"], ["begun"], ["bytes", "file", "mtime_ns"]]
    with suppress(FileNotFoundError):
        assert (kept.store.folder / LOCK).read_bytes() == b""
