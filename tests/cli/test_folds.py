"""``kvseg train BUNDLE --folds K``: all folds, one after the other, and their scores in one place."""

import json
import shlex
import sys

import pytest
from support import ROOT, TINY, run_here

from kvseg_monai.bundle.find import EVALUATE, INFERENCE, TRAIN
from kvseg_monai.cli.fitting import fitting_words
from kvseg_monai.cli.fold_job import Job
from kvseg_monai.cli.main import run
from kvseg_monai.cli.train import wants_all_folds
from kvseg_monai.data import split_folds
from kvseg_monai.errors import InputError
from kvseg_monai.report import build_report

NAME = "setr_kv_segmentation"


def test_one_fold_is_a_plain_line():
    assert wants_all_folds(["setr_kv", "--folds", "5"])
    assert wants_all_folds(["setr_kv", "--folds=5", "--fold", "None"])
    assert not wants_all_folds(["setr_kv", "--folds", "5", "--fold", "0"])
    assert not wants_all_folds(["setr_kv", "--folds", "None"])
    assert not wants_all_folds(["setr_kv", "--help", "--folds", "5"])


def test_each_configuration_gets_what_it_has():
    options = shlex.split(
        "--max_steps 5 --seed=3 --network_def#size tiny --validate#dataloader#num_workers 1 --noresume"
    )
    overlays = ["multi_gpu_train", "unetr"]
    fitting = {
        name: fitting_words(name, "setr_kv", overlays, options, without=["resume"])
        for name in (TRAIN, EVALUATE, INFERENCE)
    }
    assert fitting[TRAIN] == (["--overlay", "multi_gpu_train", "--overlay", "unetr"], options[:-1])
    assert fitting[EVALUATE] == (["--overlay", "unetr"], ["--seed=3", "--network_def#size", "tiny"])
    assert fitting[INFERENCE] == (["--overlay", "unetr"], ["--network_def#size", "tiny"])


def test_an_overlay_that_needs_the_training_is_refused():
    words = ["setr_kv", ["unetr", "kv", "kv_from_weights"], []]
    assert len(fitting_words(TRAIN, *words, without=[])[0]) == 6
    with pytest.raises(InputError, match=r"--overlay kv_from_weights refers to train, which evaluate\.json has not"):
        fitting_words(EVALUATE, *words, without=[])


@pytest.fixture
def job(tmp_path):
    identity = {"folds": 2, "options": {"max_steps": "5"}, "configuration": {"train.json": "a"}, "patients": "b"}
    return Job("setr_kv", [], [], 2, tmp_path / "models", tmp_path / "eval", identity, {"steps": 5, "epochs": 100})


def begin(job):
    job.weights(0).mkdir(parents=True)
    (job.weights(0) / "last.ckpt").touch()
    job.save()


def test_a_training_that_was_refused_is_begun_anew(job):
    """Its sentence names another option as the remedy."""
    job.save()
    job.identity = {**job.identity, "options": {"skip_bad_cases": "true"}}
    job.refuse_other_training()


def test_what_is_done_is_taken_over(job):
    begin(job)
    job.enter("trained", 0)
    job.enter("trained", 0)
    job.done = {"trained": [], "scored": []}
    job.refuse_other_training()
    assert job.done == {"trained": [0], "scored": []}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"options": {"max_steps": "6"}}, "other options: max_steps was 5 and is 6"),
        ({"options": {}}, "other options: max_steps was 5 and is not given"),
        (
            {"folds": 3, "patients": "c"},
            "other folds and patients: folds was 2 and is 3, they or their classes changed",
        ),
    ],
)
def test_another_training_is_not_gone_on_with(job, changed, sentence):
    begin(job)
    job.identity = {**job.identity, **changed}
    with pytest.raises(InputError, match=f"{sentence}; give the same again, or another --ckpt_dir"):
        job.refuse_other_training()


def test_weights_that_may_have_seen_the_cases_are_refused(job):
    job.weights(1).mkdir(parents=True)
    (job.weights(1) / "model.pt").touch()
    with pytest.raises(InputError, match=r"fold_1/model\.pt is of another training, which may have seen"):
        job.refuse_other_training()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--folds 1", "--folds is 1; it must be a whole number from 2 on"),
        ("--folds 7", r"has 6 patient\(s\) in training and validation, fewer than the 7 folds"),
        ("--folds 2 --output_dir {dataset}/eval", "lies in --dataset_dir"),
    ],
)
def test_mistakes_are_reported_before_anything_starts(tmp_path, monkeypatch, tiny_dataset, words, sentence):
    monkeypatch.chdir(tmp_path)
    words = words.format(dataset=tiny_dataset).split()
    with pytest.raises(InputError, match=sentence):
        run(["train", "setr_kv", "--dataset_dir", str(tiny_dataset), *words])
    assert not list(tmp_path.iterdir())


def test_torchrun_starts_one_fold(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="name its fold by --fold"):
        run(["train", "setr_kv", "--folds", "2"])


def test_a_run_of_folds_without_a_fold_says_what_to_do(tmp_path, tiny_dataset):
    for name in ("train", "evaluate"):
        file = ROOT / "bundles" / NAME / "configs" / f"{name}.json"
        line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(file), "--bundle_root", str(tmp_path)]
        result = run_here([*line, "--dataset_dir", str(tiny_dataset), "--folds", "2"], tmp_path)
        assert result.returncode == 2
        assert "error: --folds 2 is given without --fold" in result.stderr


def test_all_folds_are_trained_and_scored_once(tmp_path, tiny_dataset):
    """The second fold breaks at first; the same command goes on there, and a third time there is nothing left."""
    options = [*TINY, "--dataset_dir", str(tiny_dataset), "--max_steps", "2", "--slices_per_volume", "2"]
    line = [sys.executable, "-m", "kvseg_monai", "train", "setr_kv", "--folds", "2", *options]
    models, scores = tmp_path / NAME / "models", tmp_path / NAME / "eval"
    scores.mkdir(parents=True)
    (scores / "fold_1").write_text("in the way")
    broken = run_here(line, tmp_path)
    assert broken.returncode == 2
    assert json.loads((models / "folds.json").read_text())["scored"] == [0]
    made = (models / "fold_0" / "model.pt").stat().st_mtime_ns

    (scores / "fold_1").unlink()
    result = run_here(line, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (models / "fold_0" / "model.pt").stat().st_mtime_ns == made
    assert [words.count("--fold 1") for words in result.stdout.splitlines() if "monai.bundle" in words] == [1, 1]
    found = json.loads((scores / "metrics.json").read_text())
    assert {case["patient"]: case["fold"] for case in found["cases"]} == split_folds(tiny_dataset, 2)
    assert json.loads((models / "fold_1" / "training.json").read_text())["settings"]["fold"] == 1
    infer = shlex.split(result.stdout.splitlines()[-1])
    weights = [f"{NAME}/models/fold_{fold}/model.pt" for fold in range(2)]
    assert infer[:3] == ["kvseg", "infer", "setr_kv"]
    assert infer[infer.index("--ckpt_path") + 1] == str(weights).replace(" ", "")
    assert f"Dice {found['folds']['intervals']['dice']['mean']:.4f}, 95 % interval" in result.stdout
    assert "Fold by fold" in build_report(evaluation=scores, target=tmp_path / "folds.html").read_text()

    again = run_here(line, tmp_path)
    assert "monai.bundle" not in again.stdout
    assert again.stdout.splitlines()[-1] == result.stdout.splitlines()[-1]
