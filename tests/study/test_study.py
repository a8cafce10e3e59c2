"""Studies: the arms are matched, a run goes on where it stopped, and mistakes are reported in one sentence."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from ignite.engine import Events
from made_study import make_study
from PIL import Image
from support import ROOT, names_in, run_here

from kvseg_monai.errors import InputError
from kvseg_monai.study import results
from kvseg_monai.study.__main__ import main, parse_shard
from kvseg_monai.study.arm import Job, open_training, open_workflow
from kvseg_monai.study.dataset import FOLDER, data_record, write_datalist
from kvseg_monai.study.plan import read_study, select
from kvseg_monai.study.state import arms_dir, configuration, refuse_other_configurations, write_configuration
from kvseg_monai.utils.records import RECORD

SPLIT = {
    "training": ["person0", "person1", "person2"],
    "validation": ["person4"],
    "test": ["person5", "person6"],
}
STUDY = {
    "split": "split.json",
    "output_dir": "out",
    "overrides": {
        "max_epochs": 2,
        "val_interval": 1,
        "image_size": [64, 64],
        "slices_at_once": 8,
        "learning_rate": 0.01,
    },
    "nets": {"setr": {"attention": ["qkv", "kv"], "overrides": {"network_def#size": "tiny"}}},
    "seeds": [0, 1],
}
UNET = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "out_channels": 4, "strides": [2]}


def write_study(folder: Path, dataset: Path, **changes) -> Path:
    (folder / "split.json").write_text(json.dumps(SPLIT))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "dataset_dir": str(dataset), **changes}))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "kvseg_monai.study", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Here:
    """Process of an arm, in this one, as far as a study's run asks: output, log and exit code."""

    def __init__(self, line: list[str], *, stderr: TextIO, **_):
        result = run_here(line, ROOT)
        stderr.write(result.stderr)
        self.stdout, self.code = result.stdout.splitlines(), result.returncode

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_) -> None:
        pass

    def wait(self) -> int:
        return self.code


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_dataset):
    """A study of four arms and a broken one: interrupted at once, then shared by a process and this one."""
    study = write_study(
        tmp_path_factory.mktemp("study"),
        tiny_dataset,
        nets={
            **STUDY["nets"],
            "broken": {"bundle": "setr_kv_segmentation", "network": {**UNET, "channels": [4]}},
        },
    )
    out = study.parent / "out"
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where tests run in the background it is ignored
    line = command("run", study)
    with subprocess.Popen(line, stderr=subprocess.PIPE, env=environment(), preexec_fn=hears) as process:
        wait_for(out / "arms" / "setr-qkv-0" / "log.txt")
        os.kill(process.pid, signal.SIGINT)
        reported = process.communicate(timeout=300)[1].decode()
    assert (process.returncode, reported.strip().splitlines()[-1]) == (130, "interrupted")
    assert not list(out.glob("arms/*/arm.json"))

    line = command("run", study, "--arms", "setr-qkv-0")
    with (
        subprocess.Popen(line, stderr=subprocess.PIPE, env=environment(), text=True) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        wait_for(out / "arms" / "setr-qkv-0" / "training")
        patch.setattr("kvseg_monai.study.run.subprocess", SimpleNamespace(Popen=Here, PIPE=subprocess.PIPE))
        others = run_here(command("run", study, "--arms", "setr-*", "--arms", "broken-own-0"), ROOT)
        reported = process.communicate(timeout=900)[1]
    assert (process.returncode, others.returncode) == (0, 1), reported + others.stderr
    assert "1 arms made, 0 finished before" in reported
    return study, others.stderr


@pytest.fixture(scope="module")
def at_once(tmp_path_factory, tiny_dataset):
    """Three arms and a broken one, two at a time, each in a process of its own."""
    nets = {
        "setr": STUDY["nets"]["setr"],
        "broken": {"bundle": "setr_kv_segmentation", "network": {**UNET, "channels": [4]}},
    }
    study = write_study(tmp_path_factory.mktemp("at_once"), tiny_dataset, nets=nets)
    line = command("run", study, "--jobs", "2", "--arms", "setr-*-0", "--arms", "setr-kv-1", "--arms", "broken-own-0")
    ended = subprocess.run(
        line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}, timeout=900
    )
    return study, ended


def test_arms_that_are_made_at_once_are_those_of_one_after_the_other(finished, at_once):
    """The same scores, to what the number of threads changes; and one that breaks stops no other."""
    ended, names = at_once[1], ("setr-kv-0", "setr-qkv-0", "setr-kv-1")
    assert ended.returncode == 1, ended.stderr
    assert "4 arms to make on cpu, 2 at once, 0 finished" in ended.stderr
    assert "3 arms made, 0 finished before" in ended.stderr
    assert "broken arm broken-own-0: " in ended.stderr
    for name in names:
        one, two = (
            json.loads((arms_dir(read_study(study)) / name / "arm.json").read_text())
            for study, _ in (finished, at_once)
        )
        assert one["best_val_dice"] == pytest.approx(two["best_val_dice"], abs=1e-3)
        assert ("torch threads: 1" in two["device"], two["epochs"]) == (True, 2)
    rows = read_csv(at_once[0].parent / "out" / "results.csv")
    assert len(rows) == 3 * 2 * 4


def test_the_arms_that_are_made_at_once_overlap(at_once):
    """By their logs: the second begins before the first has ended."""
    out = at_once[0].parent / "out" / "arms"
    spans = [
        ((out / name / "configuration.json").stat().st_mtime, (out / name / "arm.json").stat().st_mtime)
        for name in ("setr-kv-0", "setr-qkv-0", "setr-kv-1")
    ]
    spans.sort()
    assert spans[1][0] < spans[0][1]


def test_an_interruption_ends_the_arms_that_are_made_at_once(tmp_path, tiny_dataset):
    study = write_study(tmp_path, tiny_dataset, overrides={**STUDY["overrides"], "max_epochs": 1000})
    logs = [tmp_path / "out" / "arms" / f"setr-qkv-{seed}" / "training" for seed in (0, 1)]
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    line = command("run", study, "--jobs", "2", "--arms", "setr-qkv-*")
    with subprocess.Popen(line, stderr=subprocess.PIPE, env=environment(), preexec_fn=hears, text=True) as process:
        for log in logs:
            wait_for(log)
        os.kill(process.pid, signal.SIGINT)
        reported = process.communicate(timeout=60)[1]
    assert (process.returncode, reported.strip().splitlines()[-1]) == (130, "interrupted")
    assert "broke" not in reported
    for log in logs:  # none has it in work any more
        with FileLock(log.parent / results.LOCK, timeout=5):
            assert not (log.parent / "arm.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        pytest.param(
            ["--device", "cuda"],
            "--device is cuda, and torch finds no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_the_first_arm(options, sentence, study):
    with pytest.raises(InputError, match=sentence):
        main(["run", str(study), *options])


def test_arms_at_once_share_the_memory_of_a_gpu(study, monkeypatch):
    opened = []
    monkeypatch.setattr("kvseg_monai.study.arm.create_workflow", lambda **options: opened.append(options))
    for jobs, name in ((1, "train"), (4, "train"), (4, "evaluate")):
        open_workflow(replace(job(study, "kv"), jobs=jobs, device="cuda:0"), name)
    assert [options.get("gpu_share") for options in opened] == [None, 0.25 / 4, None]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_arm_leaves_rows_per_patient_and_class(finished):
    rows = read_csv(finished[0].parent / "out" / "results.csv")
    arms = {(row["net"], row["attention"], row["seed"]) for row in rows}
    assert arms == {("setr", kind, seed) for kind in ("qkv", "kv") for seed in "01"}
    assert list(rows[0])[:9] == [*results.KEYS, "jaccard", "weighted_jaccard", "dice", "hd95_mm"]
    assert len(rows) == 4 * 2 * 4  # arms, patients, three classes and their mean
    evaluation = finished[0].parent / "out" / "arms" / "setr-kv-1" / "evaluation"
    cases = {case["patient"]: case for case in json.loads((evaluation / "metrics.json").read_text())["cases"]}
    row = next(
        r for r in rows if (r["attention"], r["seed"], r["patient"], r["class"]) == ("kv", "1", "person5", "mean")
    )
    assert float(row["jaccard"]) == cases["person5"]["jaccard"]


def test_every_arm_keeps_its_record_and_its_curve(finished):
    folders = [finished[0].parent / "out" / "arms" / f"setr-{kind}-0" for kind in ("qkv", "kv")]
    qkv, kv = (json.loads((folder / "arm.json").read_text()) for folder in folders)
    assert qkv["parameters"] - kv["parameters"] == 6 * (192**2 + 192)  # one projection in each of six blocks
    assert qkv["epochs"] == 2
    assert qkv["versions"]["torch"] == torch.__version__
    curve = read_csv(folders[0] / "curve.csv")
    assert [row["epoch"] for row in curve] == ["1", "2"]
    assert max(float(row["val_mean_dice"]) for row in curve) == qkv["best_val_dice"]


def test_a_broken_arm_is_reported_and_stops_no_other(finished):
    assert "broken arm broken-own-0: " in finished[1]
    assert "1 arm(s) broke; the same command makes them again" in finished[1]
    assert "3 arms made, " in finished[1]  # of which two come after it


def test_finished_arms_are_skipped(finished, capsys):
    record = finished[0].parent / "out" / "arms" / "setr-qkv-0" / "arm.json"
    before = record.stat().st_mtime_ns
    assert main(["run", str(finished[0]), "--arms", "setr-*"]) == 0
    assert record.stat().st_mtime_ns == before


def test_the_report_compares_the_arms(finished, capsys):
    assert main(["report", str(finished[0])]) == 0
    out = finished[0].parent / "out"
    rows = read_csv(out / "comparisons.csv")
    first = rows[0]
    assert [first[key] for key in ("net", "attention", "reference", "metric")] == ["setr", "kv", "qkv", "jaccard"]
    assert (first["seeds"], first["patients"], first["verdict"]) == ("2", "2", "undecided at this sample size")
    scores = {
        kind: np.mean(
            [
                float(r["jaccard"])
                for r in read_csv(out / "results.csv")
                if (r["attention"], r["class"]) == (kind, "mean")
            ]
        )
        for kind in ("qkv", "kv")
    }
    assert float(first["difference"]) == pytest.approx(scores["kv"] - scores["qkv"], abs=1e-12)
    text = (out / "report.md").read_text()
    assert "Not finished, and not in these tables: broken-own-0, broken-own-1." in text
    assert "| setr | kv | 2 | 2 |" in text
    figures = set(names_in(out / "figures"))
    assert {"cost.png", "difference_jaccard.png", "curves_setr.png", "pairs_setr.png"} <= figures
    for name in figures:
        assert f"(figures/{name})" in text
        with Image.open(out / "figures" / name) as picture:
            assert picture.size[0] > 400


def test_a_changed_study_does_not_mix_with_finished_arms(finished, tiny_dataset):
    text = finished[0].read_text()
    try:
        finished[0].write_text(text.replace("max_epochs: 2", "max_epochs: 3"))
        with pytest.raises(
            InputError, match=r"was made with another configuration: max_epochs is 3 and was 2, .*--redo"
        ):
            main(["run", str(finished[0]), "--arms", "setr-*"])
    finally:
        finished[0].write_text(text)


@pytest.fixture
def study(tmp_path, tiny_dataset):
    return write_study(tmp_path, tiny_dataset)


def job(study: Path, attention: str, seed: int = 0, folder: str = "") -> Job:
    plan = read_study(study)
    write_datalist(plan)
    arm = next(arm for arm in plan.arms if (arm.attention, arm.seed) == (attention, seed))
    place = arms_dir(plan) / (folder or arm.name)
    data, bundle = plan.output_dir / FOLDER, plan.bundles_dir / arm.bundle
    return Job(place, bundle, data, plan.dataset_dir, "cpu", configuration(plan, arm))


def start_weights(made: Job) -> dict[str, torch.Tensor]:
    network = open_training(made)[0].parser.get_parsed_content("network")
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def train(made: Job, stop_after: int | None = None) -> list[list[float]]:
    """Train an arm; return a few numbers of each batch, image and label."""
    workflow, trainer = open_training(made)
    seen = []

    def note(engine):
        image, label = (engine.state.batch[key].double() for key in ("image", "label"))
        seen.append([image.sum().item(), image.square().sum().item(), label.sum().item(), label[0].sum().item()])

    trainer.add_event_handler(Events.ITERATION_STARTED, note)
    if stop_after:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop_after), lambda engine: engine.terminate())
    workflow.run()
    return seen


def test_arms_of_one_seed_see_the_same_batches_whatever_their_attention(study):
    qkv, kv, other = (train(job(study, *of)) for of in (("qkv",), ("kv",), ("kv", 1)))
    assert len(qkv) == 2  # epochs of one batch
    assert qkv == kv
    assert qkv[0] != qkv[1]
    assert not {tuple(batch) for batch in other} & {tuple(batch) for batch in kv}


def test_weights_that_two_arms_share_start_alike(study):
    qkv, kv, other = (start_weights(job(study, *of)) for of in (("qkv",), ("kv",), ("kv", 1)))
    assert [name for name in qkv if name not in kv] == [
        f"encoder.blocks.{block}.attention.query.{part}" for block in range(6) for part in ("weight", "bias")
    ]
    for name, weight in kv.items():
        torch.testing.assert_close(weight, qkv[name], rtol=0, atol=0)
    name = "encoder.blocks.0.attention.key.weight"
    assert not torch.equal(kv[name], other[name])


def test_an_interrupted_arm_ends_as_if_it_had_not_been(study):
    whole, parts = job(study, "kv", folder="whole"), job(study, "kv", folder="parts")
    seen = train(whole)
    assert train(parts, stop_after=1) + train(parts) == seen
    ends = [torch.load(made.folder / "models" / "last.ckpt", weights_only=True) for made in (whole, parts)]
    assert [end["epoch"] for end in ends] == [2, 2]
    for name, weight in ends[0]["network"].items():
        torch.testing.assert_close(ends[1]["network"][name], weight, msg=name)


def test_redo_sets_other_configurations_aside(study):
    plan = read_study(study)
    write_datalist(plan)
    write_configuration(plan, plan.arms[0])
    refuse_other_configurations(plan)
    study.write_text(study.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))
    changed = read_study(study)
    with pytest.raises(
        InputError, match=r"setr-qkv-0 was made .*learning_rate is 0\.02 and was 0\.01; undo the change"
    ):
        refuse_other_configurations(changed)
    refuse_other_configurations(changed, redo=True)
    assert not (arms_dir(plan) / "setr-qkv-0").exists()
    assert len(list((plan.output_dir / "replaced").glob("setr-qkv-0_*"))) == 1


def test_a_study_that_was_made_before_the_datalist_had_a_folder_goes_on(study, monkeypatch):
    plan = read_study(study)
    write_datalist(plan)
    earlier = plan.output_dir / "datalist.json"
    (plan.output_dir / FOLDER / "datalist.json").rename(earlier)
    shutil.rmtree(plan.output_dir / FOLDER)
    before = data_record(plan.output_dir)
    monkeypatch.setattr("kvseg_monai.study.dataset._check_labels", None)  # they were checked then
    write_datalist(plan)
    assert (plan.output_dir / FOLDER / "datalist.json").read_bytes() == earlier.read_bytes()
    assert data_record(plan.output_dir) == before


@pytest.mark.parametrize("nested", ["out/data", "."])
def test_a_study_does_not_overlap_its_data(study, tiny_dataset, nested):
    data = study.parent / nested
    shutil.copytree(tiny_dataset, data, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"--output_dir .*; what is written must lie apart from what is read"):
        main(["run", str(study), "--dataset_dir", str(data)])


@pytest.mark.parametrize("redo", [(), ("--redo",)])
@pytest.mark.parametrize("name", ["configuration.json", "log.txt", "lock", "models/model.pt"])
def test_a_folder_of_the_users_is_no_arm(study, name, redo):
    mine = study.parent / "out" / "arms" / "setr-kv-0" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("[1]")
    with pytest.raises(InputError, match=r"setr-kv-0 is there and is no arm of a study; move it away"):
        main(["run", str(study), "--arms", "setr-qkv-0", *redo])
    assert mine.read_text() == "[1]"
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


@pytest.mark.parametrize("name", results.GATHERED)
def test_results_of_the_users_are_reported_before_an_arm_is_made(study, name):
    mine = study.parent / "out" / name
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match=rf"{name} is there and was not written by kvseg_monai"):
        main(["run", str(study)])
    assert mine.read_text() == "mine"
    assert not (study.parent / "out" / "arms").exists()


def test_results_of_a_study_that_was_made_before_there_were_records_are_renewed(tmp_path):
    """What is exactly what its finished arms give is ours; what somebody changed is not."""
    plan = read_study(make_study(tmp_path, nets=("setr",), seeds=1, patients=3))
    last = arms_dir(plan) / plan.arms[-1].name / results.RECORD
    gather = partial(results.gather, arms_dir(plan), [arm.name for arm in plan.arms], plan.output_dir)
    last.rename(tmp_path / "arm.json")
    assert len(gather()) == 2
    (plan.output_dir / RECORD).unlink()
    assert len(gather()) == 2
    (tmp_path / "arm.json").rename(last)
    assert len(gather()) == 3
    assert {row["attention"] for row in read_csv(plan.output_dir / "results.csv")} == {"qkv", "kv", "kv_pos"}
    (plan.output_dir / RECORD).unlink()
    (plan.output_dir / "curves.csv").write_text("notes of mine")
    with pytest.raises(InputError, match=r"curves\.csv is there and was not written by kvseg_monai"):
        gather()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [0]}, r"study\.yaml: 'sedes' is unknown; did you mean 'seeds'"),
        ({"nets": {"setr": {"atention": ["qkv"]}}}, r"nets, setr: 'atention' is unknown; did you mean 'attention'"),
        ({"nets": {"setr": {"attention": ["qkv", "kvpos"]}}}, r"attention: 'kvpos' is unknown; did you mean 'kv_pos'"),
        ({"nets": {"setr": {"attention": ["kv"]}}}, r"attention is \['kv'\]; it must hold qkv"),
        ({"nets": {"seter": {"attention": ["qkv"]}}}, r"has no bundle of 'seter', only: .*setr_qkv_segmentation"),
        ({"nets": {"unet": {"network": UNET}}}, r"beside a 'network' name the 'bundle' that trains it"),
        ({"nets": ["setr"]}, r"nets: found \['setr'\]; it must be a table"),
        ({"overrides": {"max_epoch": 3}}, r"overrides, max_epoch: 'max_epoch' is unknown; did you mean 'max_epochs'"),
        ({"overrides": {"network_def#sise": "tiny"}}, r"network_def#sise: 'sise' is unknown; did you mean 'size'"),
        ({"overrides": {"train#dataloder#batch_size": 2}}, r"'dataloder' is unknown; did you mean 'dataloader'"),
        ({"overrides": {"seed": 3}}, r"the study sets seed itself; leave it out"),
        ({"seeds": [0, 0]}, r"seeds is \[0, 0\]; give different whole numbers"),
        ({"seeds": []}, r"has no 'seeds'"),
        ({"seeds": [0, "one"]}, r"seeds is \[0, 'one'\]; give different whole numbers"),
        ({"seeds": [True]}, r"seeds is \[True\]; give different whole numbers"),
        ({"margin": True}, r"margin is True; it must be a Jaccard difference"),
        ({"nets": {"setr": {"attention": "qkv"}}}, r"nets, setr: attention is 'qkv'; give a list of kinds"),
        ({"nets": {"setr": ["qkv"]}}, r"nets, setr: found \['qkv'\]; it must be a table"),
        ({"nets": {"setr": None}}, r"attention is \[\]; it must hold qkv"),
        (
            {"nets": {"setr": {**STUDY["nets"]["setr"], "overrides": 3}}},
            r"overrides: found 3; it must be a table",
        ),
        ({"notice": ["no", "text"]}, r"notice is \['no', 'text'\]; give a sentence"),
        ({"margin": 2}, r"margin is 2; it must be a Jaccard difference between 0 and 1"),
        ({"reference": "qkvv"}, r"reference: 'qkvv' is unknown; did you mean 'qkv'"),
        ({"split": "elsewhere.json"}, r"elsewhere\.json is missing"),
        ({"output_dir": None}, r"has no 'output_dir'"),
    ],
)
def test_a_mistake_in_the_study_is_reported(tmp_path, tiny_dataset, changes, message):
    with pytest.raises(InputError, match=message):
        read_study(write_study(tmp_path, tiny_dataset, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": ["person5", "person0"]}, r"patient person0 is in training and in test"),
        ({"test": ["nobody"]}, r"datalist\.json lacks 1 patient\(s\) of the split \(nobody\)"),
        ({"validation": []}, r"names no validation patients"),
        ({"validation": "person4"}, r"split\.json: validation is 'person4'; give a list of patients"),
        ({"testing": ["person5"]}, r"split\.json: 'testing' is unknown; did you mean 'test'"),
    ],
)
def test_a_mistake_in_the_split_is_reported(study, changes, message):
    (study.parent / "split.json").write_text(json.dumps({**SPLIT, **changes}))
    with pytest.raises(InputError, match=message):
        write_datalist(read_study(study))


def test_patients_may_have_numbers_and_keys_nothing_behind_them(tmp_path, tiny_dataset):
    study = write_study(tmp_path, tiny_dataset, overrides=None, notice=7)
    (tmp_path / "split.json").write_text(json.dumps({**SPLIT, "test": [5, "06"]}))
    read = read_study(study)
    assert read.split["test"] == ["5", "06"]
    assert (list(read.split), read.notice) == (["training", "validation", "test"], "7")


def test_patients_in_no_section_are_reported(study, caplog):
    write_datalist(read_study(study))
    assert "1 patient(s) of the dataset are in no section and left out: person3" in caplog.text


def test_labels_outside_the_declared_set_are_reported(study, tmp_path):
    path = tmp_path / "five.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 2), 5, np.uint8), np.eye(4)), path)
    plan = read_study(study)
    datalist = json.loads((plan.dataset_dir / "datalist.json").read_text())
    for folder in ("images", "labels"):
        (tmp_path / folder).symlink_to(plan.dataset_dir / folder)
    datalist["training"][0]["label"] = path.name
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    with pytest.raises(InputError, match=r"five\.nii\.gz holds the values \[5\]; the dataset declares 0 to 3"):
        write_datalist(read_study(study, dataset_dir=str(tmp_path)))


def test_arms_are_selected_by_name_and_shard(study):
    arms = read_study(study).arms
    assert [arm.name for arm in arms] == ["setr-qkv-0", "setr-kv-0", "setr-qkv-1", "setr-kv-1"]
    assert [arm.name for arm in select(arms, ["*-1"])] == ["setr-qkv-1", "setr-kv-1"]
    assert [arm.name for arm in select(arms, [], (1, 2))] == ["setr-kv-0", "setr-kv-1"]
    with pytest.raises(InputError, match=r"no arm fits 'setr-kv-7'; did you mean 'setr-kv-\d'\? .*seed: 0, 1"):
        select(arms, ["setr-kv-7"])
    assert parse_shard("2/3") == (1, 3)
    with pytest.raises(InputError, match="--shard is '3/2'; it must be i/n"):
        parse_shard("3/2")


def test_a_mistake_ends_the_command_with_one_sentence(study):
    study.write_text(study.read_text().replace("seeds:", "sedes:"))
    result = run_here(command("run", study), ROOT)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (study.parent / "out").exists()


def rows(attention="kv", seed=0, **scores):
    shared = {"net": "setr", "attention": attention, "seed": seed, "volumes": 2}
    shared |= dict.fromkeys(results.OF_ARM, 1) | dict.fromkeys(results.SCORES, 0.5) | scores
    return pd.DataFrame([{**shared, "patient": f"p{number}", "class": "mean"} for number in range(3)])[
        [*results.COLUMNS]
    ]


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda text: text[:-3], r"results\.csv, line 4: the line is cut off or broken .*delete results\.csv"),
        (lambda text: text[: text.index("p2") + 4], r"line 4"),
        (lambda text: text.replace("0.5", "half", 1), r"line 2"),
        (
            lambda text: text[:20],
            r"line 1: there is no column patient, class, .*with the columns net, attention, seed, patient, class",
        ),
        (lambda text: text.splitlines()[0] + "\n", r"holds no row"),
        (lambda text: "", r"cannot be read as a table"),
        (
            lambda text: text.replace(",1\n", ",1,1\n", 1),
            r"cannot be read as a table \(Expected 14 fields in line 2, saw 15",
        ),
        (lambda text: text.replace("kv,0", "kv,zero", 1), r"line 2"),
        (lambda text: text.replace(",2,1", ",,1", 1), r"line 2"),
    ],
)
def test_a_results_file_that_is_cut_off_is_refused(study, cut, message):
    path = results.write_rows(study.parent / "out" / "results.csv", rows())
    path.write_text(cut(path.read_text()))
    with pytest.raises(InputError, match=message):
        main(["report", str(study)])


def test_a_report_of_nothing_is_reported(study):
    with pytest.raises(InputError, match="has no finished arm; make some"):
        main(["report", str(study)])


def test_an_undefined_score_is_an_empty_cell(tmp_path):
    path = results.write_rows(tmp_path / "results.csv", rows(hd95_mm=None))
    assert ",0.5,,2," in path.read_text()
    assert np.isnan(results.read_rows(path)["hd95_mm"].iloc[0])


def test_the_volumes_of_a_patient_are_averaged_where_defined():
    organ = [{"dice": 0.4, "jaccard": 0.2, "hd95_mm": None}, {"dice": 0.8, "jaccard": 0.6, "hd95_mm": 3.0}]
    cases = [{"patient": "a", "classes": {"liver": scores}, **scores, "weighted_jaccard": 0.5} for scores in organ]
    record = {"net": "setr", "attention": "kv", "seed": 0, **dict.fromkeys(results.OF_ARM, 1)}
    liver, mean = results.rows_of({"classes": {"liver": {}}, "cases": cases}, record).to_dict("records")
    assert [liver[key] for key in results.SCORES] == pytest.approx([0.4, np.nan, 0.6, 3.0], nan_ok=True)
    assert (mean["class"], mean["weighted_jaccard"], mean["volumes"]) == ("mean", 0.5, 2)
