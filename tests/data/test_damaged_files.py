"""A bit that flipped in a .nii.gz or in weights: reported, or without any effect on what is read."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.transforms import LoadImage
from support import make_volume
from torch import nn

from kvseg_monai.bundle.deploy import _same_weights
from kvseg_monai.data.nifti import open_nifti, read_volume, write_volume
from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers.checkpoints import Checkpoints
from kvseg_monai.report.slices import PictureError
from kvseg_monai.report.slices import read_volume as read_for_report
from kvseg_monai.utils.records import digest_of
from kvseg_monai.utils.weights import load_weights, save_whole
from kvseg_monai.utils.weights_file import matches_checksum, read_weights

AFFINE = np.diag([-1.5, -1.5, 3, 1])
FLIPS = 200


def flipped(content: bytes, seed: int, count: int = FLIPS) -> Iterator[bytes]:
    """``content`` with one bit turned, at random places."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        yield bytes(changed)


def by_bundle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    volume = LoadImage(reader=VolumeReader, image_only=True)(path)
    return volume.numpy(), volume.affine.numpy()


def by_report(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = read_for_report(path, role="image")
    return found.voxels, found.affine


READERS = {"bundle": by_bundle, "data_prep": read_volume, "report": by_report}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "scan.nii.gz"
    write_volume(path, make_volume(0, (20, 18, 5))[0], AFFINE)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_bit_in_a_volume_is_reported_or_changes_nothing(reader, scan, tmp_path):
    read, path, reported = READERS[reader], tmp_path / "scan.nii.gz", []
    whole = read(scan)
    for content in flipped(scan.read_bytes(), seed=len(reader)):
        path.write_bytes(content)
        try:
            found = read(path)
        except (PictureError, RuntimeError) as error:  # MONAI's wrapping
            reported.append(str(find_input_error(error) or error))
        except InputError as error:
            reported.append(str(error))
        else:
            for got, wanted in zip(found, whole, strict=True):
                np.testing.assert_array_equal(got, wanted)
    assert len(reported) > 0.9 * FLIPS
    assert all("scan.nii.gz" in sentence for sentence in reported)


def nifti_bytes() -> bytes:
    return nib.Nifti1Image(make_volume(0, (20, 18, 5))[0], AFFINE).to_bytes()


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lambda content: gzip.compress(content[:900]) + gzip.compress(content[900:]),
        lambda content: gzip.compress(content) + bytes(512),  # as written to tape
        lambda content: gzip.compress(content + b"more than the voxels"),
    ],
)
def test_what_gzip_allows_is_read(pack: Callable, tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(pack(nifti_bytes()))
    np.testing.assert_array_equal(read_volume(path)[0], make_volume(0, (20, 18, 5))[0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: gzip.compress(content)[:-1],
        lambda content: gzip.compress(content)[:-8],  # all voxels are there, the checksum is not
        lambda content: gzip.compress(content)[:-8] + bytes(8),
        lambda content: gzip.compress(content) + b"garbage",
        lambda content: gzip.compress(content) + gzip.compress(b"a second part" * 9)[:-3],
    ],
)
def test_damage_behind_the_voxels_is_reported(damage: Callable, tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(damage(nifti_bytes()))
    with pytest.raises(InputError, match=r"scan.nii.gz is no readable NIfTI file \(.+\); copy it again"):
        read_volume(path)


def test_the_checksum_costs_no_memory_beside_the_voxels(tmp_path):
    path = tmp_path / "scan.nii.gz"
    header = nib.Nifti1Image(np.zeros((8, 8, 2), np.int16), AFFINE).to_bytes()
    path.write_bytes(gzip.compress(header + bytes(64 << 20), 1))  # 64 MB that nobody asked for
    tracemalloc.start()
    with open_nifti(path) as image:
        assert np.asarray(image.dataobj).shape == (8, 8, 2)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    save_whole(nn.Linear(5, 4).state_dict(), tmp_path / "whole.pt")
    return tmp_path / "whole.pt"


def test_a_flipped_bit_in_weights_is_reported_or_changes_nothing(weights, tmp_path):
    whole, path, reported = torch.load(weights, weights_only=True), tmp_path / "model.pt", []
    for content in flipped(weights.read_bytes(), seed=1, count=3 * FLIPS):
        path.write_bytes(content)
        network = nn.Linear(5, 4)
        try:
            load_weights(network, path)
        except InputError as error:
            reported.append(str(error))
        else:
            assert all(torch.equal(network.state_dict()[name], whole[name]) for name in whole)
    assert all(sentence.startswith(f"{path} ") for sentence in reported)
    assert len(reported) > FLIPS  # a tiny file is half padding


def test_a_part_that_is_called_a_folder_is_reported(weights):
    """One flipped bit, for which torch would read whatever the memory held."""
    content = bytearray(weights.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))  # in the zip's table of contents
    content[entry + 38] ^= 0x10
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged or cut off \(.*data/0\); copy it again"):
        read_weights(weights)


def test_each_tensor_of_a_checkpoint_is_compared(tmp_path):
    """Of a ``last.ckpt`` too, whose optimizer alone is damaged."""
    path = tmp_path / "last.ckpt"
    torch.save({"network": nn.Linear(1, 1).state_dict(), "optimizer": {"state": torch.full((999,), 0.5)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\0\0\0\x3f" * 99) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged or cut off"):
        load_weights(nn.Linear(1, 1), path)


@pytest.mark.parametrize("suffix", ["model.pt", "model.safetensors"])
def test_the_sha256_beside_a_file_is_compared(suffix, weights, tmp_path):
    path = weights.rename(tmp_path / suffix)
    beside = tmp_path / f"{suffix}.sha256"
    beside.write_text(f"{digest_of(path)}  {suffix}\n")
    assert matches_checksum(path)
    for wrong in (f"{zlib.crc32(b''):064x}  {suffix}\n", "", "\xff\n"):
        beside.write_text(wrong)
        with pytest.raises(InputError, match=f"{suffix} is not the file whose sha256 stands in .*; copy both again"):
            matches_checksum(path)


def test_replaced_weights_leave_no_stale_sha256(weights, caplog):
    beside = weights.with_name("whole.pt.sha256")
    beside.write_text("0" * 64 + "  whole.pt\n")
    save_whole(nn.Linear(5, 4).state_dict(), weights)
    assert not beside.exists()
    assert len(list(weights.parent.glob("whole.pt_*.sha256"))) == 1
    read_weights(weights)


@pytest.mark.parametrize("way", ["before torch 1.6", "without checksums"])
def test_weights_without_any_checksum_are_refused_unless_their_sha256_is_there(way, tmp_path):
    path, state = tmp_path / "model.pt", nn.Linear(5, 4).state_dict()
    if way == "before torch 1.6":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(state, path)
        finally:
            torch.serialization.set_crc32_options(True)
    with pytest.raises(InputError, match=r"has no checksum .*; save it again by torch.save, or put its sha256 beside"):
        read_weights(path)
    path.with_name("model.pt.sha256").write_text(digest_of(path))
    assert torch.equal(read_weights(path)["bias"], state["bias"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_weights_that_are_no_numbers_are_neither_loaded_nor_saved(value, name, tmp_path):
    network, path = nn.BatchNorm1d(3), tmp_path / "model.pt"
    state = network.state_dict()
    state[name] = torch.tensor([1.0, value, 1.0])
    with pytest.raises(InputError, match=f"model.pt is not written, since {name} became NaN or infinite"):
        save_whole(state, path)
    assert not path.exists()
    torch.save(state, path)
    with pytest.raises(InputError, match=rf"holds NaN or infinite numbers \({name}\)"):
        load_weights(network, path)
    assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
    assert not _same_weights(path, network)


def test_a_resumed_training_does_not_take_a_broken_optimizer(tmp_path):
    network = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    optimizer.state[network.weight]["exp_avg"].fill_(float("nan"))
    progress = {"epoch": 1, "iteration": 1, "best": 0.5, "earlier_score": None}
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), **progress}
    torch.save(state, tmp_path / "last.ckpt")
    trainer = Engine(lambda engine, batch: None)
    Checkpoints(str(tmp_path), network, parts={"optimizer": optimizer}, resume=True).attach(trainer)
    with pytest.raises(InputError, match=r"last.ckpt holds NaN or infinite numbers \(optimizer.state.0.exp_avg\)"):
        trainer.run([0], max_epochs=2)
