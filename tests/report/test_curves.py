"""Curves of several trainings from their TensorBoard events: the table, the picture, and what is refused."""

import sys
from pathlib import Path

import pytest
from support import names_in
from torch.utils.tensorboard import SummaryWriter

from kvseg_monai.errors import InputError
from kvseg_monai.report.curves import main


@pytest.fixture
def trainings(tmp_path) -> Path:
    for name, values in {"qkv": (0.1, 0.5), "kv0": (0.2, 0.6), "kv1": (0.3, 0.7)}.items():
        with SummaryWriter(tmp_path / name / "eval") as writer:
            for epoch, value in enumerate(values):
                writer.add_scalar("val_mean_dice", value, epoch)
    return tmp_path


def draw(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["curves", *arguments])
    main()


def test_table_and_picture(trainings, monkeypatch):
    runs = [f"QKV={trainings}/qkv", f"KV={trainings}/kv0", f"KV={trainings}/kv1"]
    target, table = trainings / "made" / "curves.png", trainings / "made" / "curves.csv"
    draw(monkeypatch, "--runs", *runs, "--target", str(target), "--csv", str(table))
    assert table.read_text().splitlines() == [
        "name,run,step,val_mean_dice",
        *("QKV,1,0,0.1000", "QKV,1,1,0.5000"),
        *("KV,1,0,0.2000", "KV,1,1,0.6000"),
        *("KV,2,0,0.3000", "KV,2,1,0.7000"),
    ]
    assert target.read_bytes().startswith(b"\x89PNG")
    assert names_in(target.parent) == ["curves.csv", "curves.png"]


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ("qkv", "the run 'qkv' is not written as NAME=DIR"),
        ("QKV=nowhere", "nowhere is not a folder"),
        ("QKV=empty", "empty has no val_mean_dice, but no scalar at all"),
    ],
)
def test_what_cannot_be_drawn_is_reported(run, sentence, trainings, monkeypatch):
    monkeypatch.chdir(trainings)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=sentence):
        draw(monkeypatch, "--runs", run, "--target", "curves.png")
    with pytest.raises(InputError, match="qkv has no val_loss, but val_mean_dice; name one of these with --scalar"):
        draw(monkeypatch, "--runs", "QKV=qkv", "--target", "curves.png", "--scalar", "val_loss")
    assert not Path("curves.png").exists()
