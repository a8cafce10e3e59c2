"""A bundle is found by its folder, by its name here, and by its name among those of the package."""

import shutil

import pytest
from support import BUNDLES, ROOT

from kvseg_monai.bundle.find import find_bundle, find_overlay, is_shipped, shipped_bundles, shipped_folder
from kvseg_monai.errors import InputError

NAME = "setr_kv_segmentation"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy(folder):
    return shutil.copytree(ROOT / "bundles" / NAME, folder, ignore=shutil.ignore_patterns("models", "eval"))


def test_the_package_has_its_bundles():
    assert list(shipped_bundles()) == sorted(BUNDLES)
    assert shipped_folder() == ROOT / "bundles"


@pytest.mark.parametrize("name", ["setr_kv", NAME])
def test_a_name_is_looked_up_here_first(name, here):
    assert find_bundle(name) == ROOT / "bundles" / NAME
    assert is_shipped(find_bundle(name))
    copy(here / "bundles" / NAME)
    assert find_bundle(name) == here / "bundles" / NAME
    assert not is_shipped(find_bundle(name))


def test_a_folder_is_a_folder(here):
    copy(here / "mine")
    assert find_bundle("mine") == find_bundle(here / "mine") == here / "mine"


def test_results_beside_do_not_hide_the_bundle(here):
    (here / NAME / "models").mkdir(parents=True)
    assert find_bundle(NAME) == ROOT / "bundles" / NAME


def test_the_bundles_of_the_checkout_are_ones_own_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert not is_shipped(find_bundle("setr_kv"))


def test_a_folder_that_is_no_bundle(here):
    copy(here / "half")
    (here / "half" / "configs" / "metadata.json").unlink()
    with pytest.raises(InputError, match=r"half is no whole bundle, it lacks configs/metadata\.json"):
        find_bundle("half")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("setr_kw", r"there is no bundle setr_kw; give its folder, .* did you mean setr_kv or setr_qkv\?"),
        ("transunet_kvpos_segmentation", r"did you mean transunet_kv_pos\b"),
        ("xyz", r"there is no bundle xyz; .*`kvseg bundles` lists$"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, sentence, here):
    with pytest.raises(InputError, match=sentence):
        find_bundle(name)


def test_an_overlay_is_a_path_or_a_name(here):
    bundle = find_bundle("setr_kv")
    examples = ROOT / "bundles" / "examples"
    assert find_overlay("multi_gpu_train", bundle) == bundle / "configs" / "multi_gpu_train.json"
    for name in ("dicom_seg", "dicom_seg.json", "bundles/examples/dicom_seg.json"):
        assert find_overlay(name, bundle) == examples / "dicom_seg.json"
    (here / "dicom_seg.json").write_text("{}")
    assert find_overlay("dicom_seg.json", bundle).resolve() == here / "dicom_seg.json"
    with pytest.raises(InputError, match=r"no configuration dicom_sg; .*kv_from_weights.*did you mean dicom_seg\?"):
        find_overlay("dicom_sg", bundle)


def test_what_a_bundle_must_have_is_what_it_is_used_for(here):
    copy(here / "half")
    (here / "half" / "configs" / "train.json").unlink()
    assert find_bundle("half", needs=["configs/inference.json"]) == here / "half"
    with pytest.raises(InputError, match=r"it lacks configs/train\.json"):
        find_bundle("half", needs=["configs/train.json"])


def test_a_study_has_a_folder_of_bundles_of_its_own(here):
    copy(here / "own" / NAME)
    (here / NAME).mkdir()
    for name in ("setr_kv", NAME):
        assert find_bundle(name, among=here / "own") == here / "own" / NAME
    with pytest.raises(InputError, match="there is no bundle cvt_kv"):
        find_bundle("cvt_kv", among=here / "own")
