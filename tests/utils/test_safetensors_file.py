"""Weights as safetensors: beside ``model.pt``, preferred where they belong to it, read alone, never damaged."""

import pickletools
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kvseg_monai.errors import InputError
from kvseg_monai.utils.records import digest_of
from kvseg_monai.utils.safetensors_file import as_safetensors, digest_of_state, read_safetensors
from kvseg_monai.utils.weights import load_weights, save_whole
from kvseg_monai.utils.weights_file import read_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture
def weights(tmp_path):
    save_whole(network().state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_both_files_hold_the_same_weights(weights):
    state = network().state_dict()
    assert same(torch.load(weights, weights_only=True), state)
    assert same(load_file(weights.with_suffix(".safetensors")), state)


def test_the_same_weights_give_the_same_bytes():
    state = network().state_dict()
    assert len({as_safetensors(dict(reversed(state.items())), pt_sha256="1f") for _ in range(20)}) == 1


def test_safetensors_are_preferred_where_they_were_written_with_the_pt_file(weights, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    assert same(read_weights(weights), network().state_dict())


def test_those_of_another_pt_file_are_passed_over_and_that_is_said(weights, caplog):
    """As MONAI Label leaves them, which puts another ``model.pt`` into the folder."""
    read_weights(weights)
    assert not caplog.records
    torch.save({name: value + 1 for name, value in network().state_dict().items()}, weights)
    assert read_weights(weights)["0.bias"][0] == network().state_dict()["0.bias"][0] + 1
    stale = weights.with_suffix(".safetensors")
    assert caplog.messages == [f"{stale} was not written with model.pt, which is read instead"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_sha256_of_the_file_that_is_named_is_compared(suffix, weights):
    named = weights.with_suffix(suffix)
    checksum = named.with_name(f"{named.name}.sha256")
    checksum.write_text(f"{digest_of(named)}  {named.name}\n")
    assert same(read_weights(named), network().state_dict())
    checksum.write_text(f"{'0' * 64}  {named.name}\n")
    with pytest.raises(InputError, match=rf"{named.name} is not the file whose sha256 stands in"):
        read_weights(named)


def test_alone_they_load_into_a_network(weights, tmp_path):
    alone = tmp_path / "alone.safetensors"
    save_whole(network().state_dict(), alone)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    load_weights(net, alone)
    assert same(net.state_dict(), network().state_dict())
    with pytest.raises(InputError, match=r"alone\.safetensors holds the weights of another network"):
        load_weights(nn.Linear(2, 2), alone)


def test_damaged_ones_are_reported_and_the_pt_file_is_read(weights, caplog):
    path = weights.with_suffix(".safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert same(read_weights(weights), network().state_dict())
    assert "model.pt is read instead" in caplog.text
    assert "model.safetensors is damaged: its tensors are not those whose sha256 it holds; copy it again" in caplog.text


def test_every_flipped_bit_is_reported_or_changes_nothing(tmp_path):
    path, state, content = tmp_path / "a.safetensors", network().state_dict(), as_safetensors(network().state_dict())
    rng, silent = np.random.default_rng(0), 0
    for place in rng.choice(8 * len(content), 400, replace=False):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            silent += not same(read_safetensors(path), state)
        except InputError:
            continue
    assert silent == 0


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", (1 << 62).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_is_refused(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.safetensors cannot be read as safetensors .*; copy it again"):
        read_weights(path)


def test_the_digest_knows_names_kinds_and_shapes():
    states = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.ones(4)},
    ]
    assert len({digest_of_state(state) for state in states}) == 5


def test_only_the_pt_file_holds_a_program(weights):
    with zipfile.ZipFile(weights) as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert any(operation.name == "GLOBAL" for operation, *_ in pickletools.genops(program))
    assert b"torch" not in weights.with_suffix(".safetensors").read_bytes()
