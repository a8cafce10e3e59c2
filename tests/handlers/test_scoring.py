"""The scoring handler, driven by a real ignite engine."""

import json
import logging
import math
import os

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.score_volumes import ScoreVolumes, as_table, case_name, gather_cases, number_duplicates

ORGANS = ["large_bowel", "stomach"]


def volume(start=2, *, value=1, name="/data/scan.nii.gz", spacing=(1.0, 2.0, 4.0)):
    array = torch.zeros(1, 8, 8, 4)
    array[:, start : start + 2, 2:4, 1:3] = value
    return MetaTensor(array, affine=torch.diag(torch.tensor([*spacing, 1.0])), meta={"filename_or_obj": name})


def item(name="scan.nii.gz", *, pred_start=2, value=1, **more):
    return {
        "image": volume(name=f"/data/images/{name}"),
        "label": volume(name=f"/data/labels/{name}", value=value),
        "pred": volume(pred_start, name=f"/data/images/{name}", value=value),
        **more,
    }


def run(batches, folder, **options):
    engine = Engine(lambda engine, batch: batch)
    ScoreVolumes(folder, ORGANS, **options).attach(engine)
    engine.run(batches)
    return engine


def test_scores_batches_and_writes_the_summary(tmp_path):
    batches = [[item("a.nii.gz", patient="p1"), item("b.nii", pred_start=3, patient="p1")], [item("c.x.nii.gz")]]
    engine = run(batches, tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    cases = metrics["cases"]
    assert [(c["case"], c["patient"]) for c in cases] == [("a", "p1"), ("b", "p1"), ("c.x", "c.x")]
    assert [c["dice"] for c in cases] == [1.0, 0.5, 1.0]
    assert cases[1]["hd95_mm"] == pytest.approx(1.0)  # one voxel along X, from the label's affine
    assert cases[0]["classes"]["large_bowel"]["label_ml"] == pytest.approx(8 * 8 / 1000)
    assert (cases[0]["image"], cases[0]["label"]) == ("/data/images/a.nii.gz", "/data/labels/a.nii.gz")
    assert engine.state.metrics["val_mean_dice"] == pytest.approx(metrics["mean"]["dice"]) == pytest.approx(2.5 / 3)
    assert engine.state.metrics["val_large_bowel_dice"] == pytest.approx(2.5 / 3)
    assert math.isnan(engine.state.metrics["val_stomach_dice"])
    assert {"started", "seconds", "device", "versions"} <= set(metrics["manifest"])
    assert set(engine.state.metrics) >= {"val_mean_jaccard", "val_mean_weighted_jaccard", "val_mean_hd95_mm"}


def test_later_handlers_see_the_scores_at_the_end_of_the_epoch(tmp_path):
    from ignite.engine import Events

    seen = []
    engine = Engine(lambda engine, batch: batch)
    ScoreVolumes(tmp_path, ORGANS).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics["val_mean_dice"]))
    engine.run([[item()]])
    engine.run([[item(pred_start=3)]])  # a second run starts anew
    assert seen == [1.0, 0.5]


def test_duplicate_names_are_numbered(tmp_path):
    items = [item(f"{folder}/scan.nii.gz") for folder in "ab"] + [item("scan_2.nii.gz"), item("c/scan.nii.gz")]
    run([items], tmp_path)
    cases = json.loads((tmp_path / "metrics.json").read_text())["cases"]
    assert [case["case"] for case in cases] == ["scan", "scan_3", "scan_2", "scan_4"]


def test_notice_and_saved_prediction_are_recorded(tmp_path):
    one = item()
    one["pred"].meta["saved_to"] = "/out/scan/scan_seg.nii.gz"
    run([[one]], tmp_path, notice="a phantom")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["notice"] == "a phantom"
    assert metrics["cases"][0]["prediction"] == "/out/scan/scan_seg.nii.gz"


def test_the_table_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="kvseg_monai.handlers.score_volumes"):
        run([[item(patient="Jane Doe")]], tmp_path)
    assert "large_bowel" in caplog.text
    assert "1.0000" in caplog.text
    assert "Jane" not in caplog.text


def test_table_lines_up():
    scores = {"dice": 0.5, "jaccard": 1 / 3, "hd95_mm": None, "false_negatives": 1, "false_positives": 0}
    mean = {"dice": 0.5, "jaccard": 1 / 3, "weighted_jaccard": 0.25, "hd95_mm": None}
    lines = as_table({"classes": {"large_bowel": scores}, "mean": mean}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["large_bowel", "0.5000", "0.3333", "-", "-", "1", "0"]


def test_files_from_disk_in_any_orientation(tmp_path):
    data = np.zeros((6, 8, 4), np.uint8)
    data[2:4, 2:5, 1:3] = 1
    affine = np.array([[0, 0, 5.0, 3], [-1.5, 0, 0, 2], [0, 2.0, 0, 1], [0, 0, 0, 1]])
    for name in ("image", "label"):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    load = Compose([LoadImaged(["image", "label"], ensure_channel_first=True)])
    loaded = load({name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")})
    shifted = torch.roll(loaded["label"], 1, dims=2)  # one voxel along Y, 2 mm
    run([[{**loaded, "pred": shifted}]], tmp_path / "out")
    case = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"][0]
    assert case["case"] == "image"
    assert case["hd95_mm"] == pytest.approx(2.0)
    assert case["classes"]["large_bowel"]["label_ml"] == pytest.approx(12 * 15 / 1000)


def test_slices_are_axial_however_the_file_lies(tmp_path):
    files = {"axial": (0, 1, 2), "sagittal": (2, 0, 1)}
    for name, order in files.items():
        one = item(f"{name}.nii.gz", pred_start=3)
        for volume_ in one.values():
            volume_.set_array(volume_.as_tensor().permute(0, *(axis + 1 for axis in order)).contiguous())
            volume_.affine = volume_.affine[:, [*order, 3]]
        run([[one]], tmp_path / name)
    found = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in files]
    assert found[0]["protocols"] == found[1]["protocols"]
    assert found[0]["protocols"]["all_slices"]["classes"]["large_bowel"]["dice"] == pytest.approx((2 + 2 * 0.5) / 4)


def test_another_grid_is_warned_about(tmp_path, caplog):
    one = item()
    one["pred"] = MetaTensor(one["pred"].as_tensor(), affine=torch.eye(4))
    run([[one]], tmp_path)
    assert "is Invertd missing?" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": volume(value=7)}, r"case scan: the prediction holds the value\(s\) 7"),
        ({"pred": torch.zeros(2, 8, 8, 4)}, r"case scan: the prediction has shape \(2, 8, 8, 4\); \(1, X, Y, Z\)"),
        ({"pred": torch.zeros(1, 8, 8, 5)}, r"case scan: the prediction has shape \(8, 8, 5\)"),
        ({"label": torch.zeros(1, 8, 8, 4)}, "case scan: the label has no affine"),
    ],
)
def test_a_bad_item_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run([[{**item(), **change}]], tmp_path)


def test_a_missing_key_is_refused(tmp_path):
    one = item()
    del one["pred"]
    with pytest.raises(InputError, match=r"has no \['pred'\]"):
        run([[one]], tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.nii.gz", "b"), ("b.nii", "b"), ("/a/series/", "series"), ("x.y.nii.gz", "x.y"), ("z.gz", "z.gz")],
)
def test_case_name(path, name):
    assert case_name(path) == name


def test_numbering_keeps_single_names():
    assert [c["case"] for c in number_duplicates([{"case": "a"}, {"case": "b"}])] == ["a", "b"]


def _evaluate_one_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mine = (
        [[item("a.nii.gz")], [item("b.nii.gz", pred_start=3)]]
        if rank == 0
        else [[item("c.nii.gz")], [item("a.nii.gz")]]
    )
    engine = run(mine, os.path.join(folder, f"rank{rank}"))
    assert engine.state.metrics["val_mean_dice"] == pytest.approx(2.5 / 3)
    dist.destroy_process_group()


def test_two_processes_gather_and_rank_0_writes(tmp_path):
    torch.multiprocessing.spawn(_evaluate_one_rank, args=(str(tmp_path),), nprocs=2)
    cases = json.loads((tmp_path / "rank0" / "metrics.json").read_text())["cases"]
    assert [case["case"] for case in cases] == ["a", "b", "c"]  # the repeated a counts once
    assert not (tmp_path / "rank1").exists()


def test_gathering_in_one_process_changes_nothing():
    cases = [{"image": "a"}, {"image": "a"}]
    assert gather_cases(cases) == cases
