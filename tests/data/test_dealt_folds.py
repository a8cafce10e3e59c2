"""Folds: each patient in one, as many in each, the classes in all; never a test case."""

import json
import shutil
from collections import Counter
from itertools import chain

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvseg_monai.data import cases_of_fold, cases_to_score, check_folds, deal_folds, split_folds
from kvseg_monai.errors import InputError

PATIENTS = st.dictionaries(st.text(min_size=1, max_size=3), st.sets(st.integers(1, 4)), min_size=6, max_size=30)


@given(PATIENTS, st.integers(2, 6), st.integers(0, 3))
def test_each_patient_is_in_one_fold_of_equal_ones(classes, folds, seed):
    dealt = deal_folds(classes, folds, seed=seed)
    assert dealt.keys() == classes.keys()
    sizes = Counter(dealt.values())
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert dealt == deal_folds(dict(reversed(classes.items())), folds, seed=seed)


@given(PATIENTS, st.integers(2, 6))
def test_the_rarest_class_is_spread_evenly(classes, folds):
    counts = Counter(value for found in classes.values() for value in found)
    if not counts:
        return
    rarest = min(counts, key=lambda value: (counts[value], value))
    dealt = deal_folds(classes, folds)
    held = Counter(dealt[patient] for patient, found in classes.items() if rarest in found)
    assert max(held.values()) - min(held[fold] for fold in range(folds)) <= 1


def test_two_rare_classes_are_in_every_fold():
    classes = {f"p{number}": [1, 2] if number < 3 else [1, 3] if number < 6 else [1] for number in range(12)}
    for seed in range(5):
        dealt = deal_folds(classes, 3, seed=seed)
        for value in (2, 3):
            assert sorted(dealt[p] for p, found in classes.items() if value in found) == [0, 1, 2]


def test_another_seed_gives_other_folds():
    classes = {f"p{number}": {1} for number in range(12)}
    assert deal_folds(classes, 3, seed=0) != deal_folds(classes, 3, seed=1)


def test_a_fold_holds_out_what_the_others_train_on(tiny_dataset):
    found = [cases_of_fold(tiny_dataset, folds=3, fold=fold) for fold in range(3)]
    held_out = [[case["patient"] for case in sections["validation"]] for sections in found]
    assert sorted(chain.from_iterable(held_out)) == [
        f"person{number}" for number in range(6)
    ]  # person6 is for the test
    for sections, out in zip(found, held_out, strict=True):
        kept = {case["patient"] for case in sections["training"]}
        assert kept | set(out) == {f"person{number}" for number in range(6)}
        assert not kept & set(out)
        assert cases_to_score(tiny_dataset, "test", folds=3, fold=found.index(sections)) == sections["validation"]
    assert [case["patient"] for case in cases_to_score(tiny_dataset, "test")] == ["person6"]


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(tiny_dataset, tmp_path / "dataset")


def test_all_cases_of_a_patient_are_in_one_fold(dataset):
    file = dataset / "datalist.json"
    datalist = json.loads(file.read_text())
    for entry, patient in zip(datalist["training"], "aabb", strict=True):
        entry["patient"] = patient
    file.write_text(json.dumps(datalist))
    assert sorted(split_folds(dataset, 4)) == ["a", "b", "person4", "person5"]
    sizes = [len(cases_of_fold(dataset, folds=4, fold=fold)["validation"]) for fold in range(4)]
    assert sorted(sizes) == [1, 1, 2, 2]


def test_the_labels_say_which_classes_occur(dataset):
    """Of six patients two have the class 3: one in each of two folds, whatever the seed."""
    for number in range(4):
        path = dataset / "labels" / f"case{number}.nii.gz"
        image = nib.load(path)
        voxels = np.asarray(image.dataobj).copy()
        voxels[voxels == 3] = 0
        nib.save(nib.Nifti1Image(voxels, image.affine), path)
    for seed in range(6):
        dealt = split_folds(dataset, 2, seed=seed)
        assert dealt["person4"] != dealt["person5"]


def test_a_label_that_cannot_be_read_is_left_to_the_checks(dataset):
    (dataset / "labels" / "case0.nii.gz").write_bytes(b"no label")
    assert len(split_folds(dataset, 2)) == 6


def test_more_folds_than_patients_are_refused(tiny_dataset):
    with pytest.raises(InputError, match=r"has 6 patient\(s\) in training and validation, fewer than the 7 folds"):
        split_folds(tiny_dataset, 7)


@pytest.mark.parametrize(
    ("folds", "fold", "sentence"),
    [
        (1, 0, "--folds is 1; it must be a whole number from 2 on"),
        ("five", 0, "--folds is 'five'"),
        (True, 0, "--folds is True"),
        (5, None, r"without --fold, .*one of 0 to 4.*kvseg train BUNDLE --folds 5"),
        (None, 0, "--fold 0 is given without --folds"),
        (5, 5, "--fold is 5; with --folds 5 it must be a whole number from 0 to 4"),
        (5, -1, "--fold is -1"),
        (5, 1.0, "--fold is 1.0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(folds, fold, sentence):
    with pytest.raises(InputError, match=sentence):
        check_folds(folds, fold)


def test_no_folds_are_fine():
    check_folds(None, None)
    check_folds(2, 1)
