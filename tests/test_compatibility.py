"""What version 0.1.0 wrote is read, or refused with what to do; ``artefacts/0.1.0/README.md`` says how it was made."""

import json
import logging
import re
import shlex
import shutil
import warnings
from pathlib import Path
from pydoc import locate

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from support import ROOT

import kvseg_monai
from data_prep.common.target import check_target
from kvseg_monai.blocks import parameter_groups
from kvseg_monai.bundle.pack import main as pack
from kvseg_monai.errors import InputError, find_input_error
from kvseg_monai.handlers.checkpoints import LAST
from kvseg_monai.label.install import install_bundle
from kvseg_monai.report.evaluation import build_report
from kvseg_monai.study.compare import arms_of
from kvseg_monai.study.plan import read_study
from kvseg_monai.study.report import load, write_report
from kvseg_monai.study.run import run_study
from kvseg_monai.utils import old_names

OLD = ROOT / "tests" / "artefacts" / "0.1.0"
NAME = "setr_kv_segmentation"
PAGE = ROOT / "docs" / "compatibility.md"
SMALL = {"image_size": [32, 32], "spacing": [2.5, 2.5], "volumes_per_batch": 2, "slices_per_volume": 2}
CONFIGURATIONS = sorted((OLD / NAME / "configs").glob("*.json"))
NAMED = sorted({name for file in CONFIGURATIONS for name in re.findall(r"kvseg_monai\.[\w.]+", file.read_text())})

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def drawn_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that numpy draws from the place of each tensor: those of the packed bundle, whatever torch's version."""
    state = network.state_dict()
    for place, (name, tensor) in enumerate(state.items()):
        if tensor.dtype.is_floating_point:
            drawn = np.random.RandomState(place).standard_normal(tuple(tensor.shape)) * 0.05
            scales = tensor.ndim < 2 and "bias" not in name and "mean" not in name
            state[name] = torch.from_numpy(np.abs(drawn) + 0.5 if scales else drawn).float()
    return state


def network(**options) -> torch.nn.Module:
    return kvseg_monai.SETR(1, 4, 64, attention="kv", size="tiny", **options)


@pytest.fixture
def bundle(tmp_path) -> Path:
    """The bundle that was packed at 0.1.0, whole."""
    folder = shutil.copytree(OLD / NAME, tmp_path / NAME)
    (folder / "models").mkdir()
    torch.save(drawn_weights(network()), folder / "models" / "model.pt")
    return folder


def run(folder: Path, name: str, dataset: Path = OLD / "dataset", **options) -> None:
    """Run a configuration as MONAI does; on the command line it does the same."""
    kind = "train" if name == "train" else "inference"
    file = str(folder / "configs" / f"{name}.json")
    roots = {"bundle_root": str(folder), "dataset_dir": str(dataset)}
    workflow = create_workflow(config_file=file, workflow_type=kind, **{**roots, **options})
    workflow.run()
    workflow.finalize()


def assert_same_maps(folder: Path) -> None:
    """Compare label maps with those that 0.1.0 made of the same images by the same weights."""
    names = sorted(path.name for path in (OLD / "maps").iterdir())
    assert sorted(path.name for path in folder.glob("*.nii.gz")) == names
    for name in names:
        old, new = nib.load(OLD / "maps" / name), nib.load(folder / name)
        np.testing.assert_array_equal(np.asarray(new.dataobj), np.asarray(old.dataobj), name)
        np.testing.assert_allclose(new.affine, old.affine, atol=1e-5)


def test_a_packed_bundle_gives_the_same_label_maps(bundle, tmp_path):
    with pytest.warns(
        FutureWarning, match=r"kvseg_monai\.guard\.CheckVolumed is kvseg_monai\.transforms\.CheckVolumed"
    ):
        run(bundle, "inference", OLD / "dataset" / "images", output_dir=str(tmp_path / "maps"))
    assert_same_maps(tmp_path / "maps")


def test_a_packed_bundle_is_scored_alike(bundle, tmp_path):
    run(bundle, "evaluate", output_dir=str(tmp_path / "scores"))
    old, new = (json.loads((at / "metrics.json").read_text()) for at in (OLD / "evaluation", tmp_path / "scores"))
    for key in ("dice", "jaccard", "weighted_jaccard", "hd95_mm"):
        assert new["mean"][key] == pytest.approx(old["mean"][key], abs=1e-12)
        assert new["cases"][0][key] == pytest.approx(old["cases"][0][key], abs=1e-12)


def test_a_packed_bundle_is_trained(bundle):
    (bundle / "models" / "model.pt").unlink()
    run(bundle, "train")
    saved = torch.load(bundle / "models" / LAST, weights_only=False)
    assert [group["initial_lr"] for group in saved["optimizer"]["param_groups"]] == [0.001, 0.001, 0.01]


@pytest.mark.parametrize("name", NAMED)
def test_every_name_in_the_configurations_is_found(name):
    assert locate(name) is not None


def test_a_name_that_never_was_is_not_found():
    assert locate("kvseg_monai.checkpoints.Nothing") is None
    with pytest.raises(AttributeError, match="module 'kvseg_monai' has no attribute 'nothing'"):
        kvseg_monai.nothing  # noqa: B018


def test_names_of_today_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert locate("kvseg_monai.handlers.Checkpoints") is kvseg_monai.handlers.Checkpoints


def test_packing_names_the_command_that_repacks_and_it_does(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = ["--weights", str(bundle / "models" / "model.pt"), "--target", str(tmp_path / "out")]
    with pytest.raises(
        InputError, match=r"requires kvseg_monai 0\.1\.0, but .* into the bundle of this one:"
    ) as refusal:
        pack([str(bundle), *options])
    line = shlex.split(str(refusal.value).rpartition(": ")[2])
    assert line[:3] == ["python", "-m", "kvseg_monai.pack"]
    assert line[line.index("--query_bias_lr_scale") + 1] == "10"
    pack([str(tmp_path / "out") if word == "DIR" else word for word in line[3:]])
    (archive,) = (tmp_path / "out").glob("*.zip")
    shutil.unpack_archive(archive, tmp_path / "new")
    configs = [(folder / "configs" / "train.json").read_text() for folder in (bundle, tmp_path / "new" / NAME)]
    assert [json.loads(config)["max_epochs"] for config in configs] == [1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        run(tmp_path / "new" / NAME, "inference", OLD / "dataset" / "images", output_dir=str(tmp_path / "maps"))
    assert_same_maps(tmp_path / "maps")


def test_a_bundle_that_lies_in_the_label_server_stays_and_a_packed_one_is_taken(bundle, tmp_path, caplog):
    app = tmp_path / "app"
    shutil.copytree(bundle, app / "model" / NAME)
    with caplog.at_level(logging.WARNING):
        assert install_bundle(app, bundle) == NAME
    assert "is there already and keeps its weights" in caplog.text
    install_bundle(tmp_path / "other", bundle, weights=bundle / "models" / "model.pt")
    run(tmp_path / "other" / "model" / NAME, "inference", OLD / "dataset" / "images", output_dir=str(tmp_path / "maps"))
    assert_same_maps(tmp_path / "maps")


def test_a_training_goes_on_from_last_ckpt(tmp_path):
    models = shutil.copytree(OLD / "unet" / "models", tmp_path / "models")
    before = torch.load(models / LAST, weights_only=False)
    options = {**json.loads((OLD / "unet" / "unet.json").read_text()), **SMALL, "max_epochs": 2, "resume": True}
    places = {"ckpt_dir": str(models), "output_dir": str(tmp_path / "eval")}
    run(ROOT / "bundles" / NAME, "train", **options, **places)
    after = torch.load(models / LAST, weights_only=False)
    assert (before["epoch"], after["epoch"], after["iteration"]) == (1, 2, 2 * before["iteration"])
    told = [json.loads((folder / "training.json").read_text()) for folder in (OLD / "unet" / "models", models)]
    assert told[1]["started"] == told[0]["started"]
    assert told[1]["seconds"] > told[0]["seconds"]


def test_weights_and_optimizer_have_the_names_and_shapes_of_then():
    old = json.loads((OLD / "last_ckpt.json").read_text())
    today = kvseg_monai.SETR(1, 4, 32, attention="kv", size="tiny")
    assert {name: list(tensor.shape) for name, tensor in today.state_dict().items()} == old["network"]
    groups = parameter_groups(today, learning_rate=0.001, weight_decay=0.05, query_bias_lr_scale=10)
    told = [(len(group["params"]), group.get("lr", 0.001), group["weight_decay"]) for group in groups]
    assert told == [(group["weights"], group["lr"], group["weight_decay"]) for group in old["optimizer"]]


@pytest.fixture
def study_file(tmp_path) -> Path:
    """A study that was made at 0.1.0, and its data."""
    for name in ("dataset", "results"):
        shutil.copytree(OLD / name, tmp_path / name)
    shutil.copy(OLD / "split.json", tmp_path)
    return Path(shutil.copy(OLD / "study.yaml", tmp_path))


def test_a_study_is_reported(study_file):
    with pytest.warns(FutureWarning, match="the option query_bias_rate is query_bias_lr_scale now"):
        study = read_study(study_file)
    assert {arm.overrides["query_bias_lr_scale"] for arm in study.arms} == {10}
    write_report(study, file=study_file)
    old = json.loads((OLD / "results" / "arms.json").read_text())
    report = (study.output_dir / "report.md").read_text()
    for record in old.values():
        assert f"{record['test']['jaccard']:.3f}" in report


def test_a_study_is_not_run_on_and_says_what_to_do(study_file):
    study = read_study(study_file)
    with pytest.raises(InputError) as refusal:
        run_study(study, study.arms, device="cpu")
    sentence = str(refusal.value)
    assert re.search(
        r"setr-qkv-0 was made with another configuration: bundle train is \"\w+\" and was \"\w+\"", sentence
    )
    assert "query_bias" not in sentence  # the option has another name, and the same value
    assert "study report reads the arms as they are" in sentence
    assert "give --redo" in sentence


def test_the_published_study_is_read(tmp_path):
    """Results on ACDC that 0.1.0 made."""
    folder = shutil.copytree(ROOT / "bundles" / "studies" / "acdc", tmp_path / "acdc")
    study = read_study(folder / "study.yaml", output_dir=str(folder / "results"))
    assert len(arms_of(load(study))) == len(study.arms)


def test_a_prepared_data_set_is_not_prepared_on():
    """Reading it is what most tests above do."""
    summary = json.loads((OLD / "dataset" / "summary.json").read_text())
    mark = {"tool": summary["tool"], "source_fingerprint": summary["source_fingerprint"]}
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"as of an older version.*give a new or empty folder"):
            check_target(OLD / "dataset", **mark, overwrite=overwrite)


def test_scores_of_0_1_0_are_not_replaced(bundle, tmp_path):
    folder = shutil.copytree(OLD / "evaluation", tmp_path / "evaluation")
    with pytest.raises(RuntimeError) as refusal:  # MONAI wraps it
        run(bundle, "evaluate", output_dir=str(folder))
    assert re.search(r"metrics\.json .*is there.* move the file away", str(find_input_error(refusal.value)))
    assert (folder / "metrics.json").read_bytes() == (OLD / "evaluation" / "metrics.json").read_bytes()


def test_an_evaluation_is_reported(tmp_path):
    evaluation = shutil.copytree(OLD / "evaluation", tmp_path / "evaluation")
    page = Path(build_report(evaluation=str(evaluation), target=str(tmp_path / "report.html"))).read_text()
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert f"{metrics['mean']['dice']:.3f}" in page
    assert "0.1.0" in page


TABLES = ("MODULES", "NAMES", "OPTIONS", "METRICS", "METHODS", "CHECKPOINT")


@pytest.mark.parametrize("table", TABLES)
def test_the_page_has_every_row_of_the_table(table):
    page = PAGE.read_text(encoding="utf-8")
    for old, new in getattr(old_names, table).items():
        assert f"| `{old}` | `{new}` |" in page


def test_the_page_has_no_row_that_the_tables_have_not():
    known = {row for table in TABLES for row in getattr(old_names, table).items()}
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == known
