"""``kvseg bundles``: what there is, and a copy of one to change."""

import filecmp

import pytest
from support import BUNDLES, ROOT

from kvseg_monai.bundle.find import SOURCES, find_bundle
from kvseg_monai.cli.bundles import copy_bundle, main
from kvseg_monai.errors import InputError

NAME = "setr_kv_segmentation"


@pytest.mark.parametrize("words", [[], ["list"]])
def test_bundles_are_listed_by_name(words, capsys):
    main(words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:9]] == sorted(BUNDLES)
    assert "SETR with KV attention, MRI segmentation" in lines[4]
    assert "dicom_seg" in lines[9]
    assert str(ROOT / "bundles") in lines[10]


def test_a_copy_holds_what_a_bundle_is_and_no_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = copy_bundle("setr_kv", "bundles")
    (first / "models").mkdir()
    (first / "models" / "model.pt").touch()
    assert find_bundle("setr_kv") == tmp_path / first
    main(["copy", "setr_kv", "mine"])
    assert capsys.readouterr().out == f"wrote mine/{NAME}\n"
    assert sum(path.is_file() for path in (tmp_path / "mine").rglob("*")) == len(SOURCES)
    same, different, _ = filecmp.cmpfiles(ROOT / "bundles" / NAME, tmp_path / "mine" / NAME, SOURCES, shallow=False)
    assert (sorted(same), different) == (sorted(SOURCES), [])


def test_what_is_there_stays(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=f"{NAME} is there already; name another folder"):
        copy_bundle("setr_kv", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [NAME, "note.txt"]


@pytest.mark.parametrize(("name", "file"), [("examples", "dicom_seg.json"), ("templates", "train.yaml.j2")])
def test_examples_and_templates_can_be_copied(tmp_path, name, file):
    made = copy_bundle(name, tmp_path / "new")
    assert (made / file).read_bytes() == (ROOT / "bundles" / name / file).read_bytes()
