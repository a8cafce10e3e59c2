"""The evaluations of all folds as one: cases, averages, intervals, calibration, and the page of it."""

import csv
import json

import numpy as np
import pytest
import torch
from made_evaluation import ORGANS, make_case

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.sample_logits import SAMPLE
from kvseg_monai.metrics.summary import summarise, write_metrics
from kvseg_monai.report import build_report
from kvseg_monai.study.out_of_fold import join_folds, patient_interval


def make_folds(folder, *, classes=ORGANS):
    """Two folds, of three and two cases, of two patients each."""
    folders = []
    for fold, names in enumerate((("p0_day0", "p0_day1", "p1_day0"), ("p2_day0", "p3_day0"))):
        folders.append(folder / f"fold_{fold}")
        cases = [make_case(folders[-1], name, shift) for shift, name in enumerate(names)]
        settings = {"folds": 2, "fold": fold, "section": "test", "seed": 0}
        manifest = {"overrides": {"folds": 2, "fold": fold}, "settings": settings, "seconds": 1.5}
        summary = {**summarise(cases, ORGANS), "notice": "Made up.", "manifest": manifest}
        write_metrics(summary, folders[-1])
        generator = torch.Generator().manual_seed(fold)
        logits = 4 * torch.randn(5000, 3, generator=generator)
        labels = torch.multinomial((logits / 2).softmax(-1), 1, generator=generator)[:, 0].to(torch.uint8)
        np.savez(folders[-1] / SAMPLE, logits=logits.numpy(), labels=labels.numpy())
    return folders


def test_cases_of_all_folds_are_averaged_once(tmp_path):
    folders = make_folds(tmp_path)
    summary = join_folds(folders, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found == json.loads(json.dumps(summary))
    single = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    assert [(case["case"], case["fold"]) for case in found["cases"]] == [
        *(("p0_day0", 0), ("p0_day1", 0), ("p1_day0", 0), ("p2_day0", 1), ("p3_day0", 1)),
    ]
    assert found["mean"] == summarise([case for one in single for case in one["cases"]], ORGANS)["mean"]
    assert [of["mean"] for of in found["folds"]["folds"]] == [one["mean"] for one in single]
    assert [(of["cases"], of["patients"]) for of in found["folds"]["folds"]] == [(3, 2), (2, 2)]
    assert found["notice"] == "Made up."
    assert (found["manifest"]["seconds"], found["manifest"]["settings"]) == (3.0, {"folds": 2, "seed": 0})
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert {(row["case"], row["fold"]) for row in rows if row["class"] == "mean"} == {
        (case["case"], str(case["fold"])) for case in found["cases"]
    }


def test_a_table_without_folds_has_no_such_column(tmp_path):
    folder = make_folds(tmp_path)[0]
    assert "fold" not in next(csv.reader((folder / "metrics.csv").open()))


def test_a_patient_counts_once_in_the_interval():
    cases = [{"patient": "a", "dice": 0.2}, {"patient": "a", "dice": 0.4}, *({"patient": p, "dice": 0.9} for p in "bc")]
    found = patient_interval([*cases, {"patient": "d", "dice": None}], "dice")
    assert (found["patients"], found["mean"]) == (3, pytest.approx(0.7))
    assert found["low"] == pytest.approx(0.3)  # all three draws are of a: 1 in 27
    assert found["high"] == pytest.approx(0.9)


def test_an_interval_of_one_patient_is_not_defined():
    assert patient_interval([{"patient": "a", "dice": 0.5}], "dice") == {
        **{"patients": 1, "mean": 0.5, "low": None, "high": None}
    }


def test_the_temperature_goes_to_a_file_and_the_page(tmp_path):
    join_folds(make_folds(tmp_path), tmp_path)
    calibration = json.loads((tmp_path / "calibration.json").read_text())
    assert calibration["temperature"] == pytest.approx(2, rel=0.1)
    assert calibration["after"]["expected_calibration_error"] < calibration["before"]["expected_calibration_error"] / 3
    page = build_report(evaluation=tmp_path, target=tmp_path.parent / "pages" / "folds.html").read_text()
    for of in calibration["folds"]:
        cells = (f"{of[when]['expected_calibration_error']:.3f}" for when in ("before", "after"))
        assert "".join(f"<td>{cell}</td>" for cell in (of["fold"], *cells, f"{of['temperature']:.2f}", 5000)) in page
    assert "each of 2 folds, by the weights that were trained on the others" in page
    assert str(tmp_path) not in page


def test_a_page_of_no_folds_has_none_of_it(tmp_path):
    page = build_report(evaluation=make_folds(tmp_path)[0], target=tmp_path / "pages" / "one.html").read_text()
    assert "Fold by fold" not in page
    assert "those of fold 0 (of 2, counted from 0)" in page


def test_what_is_missing_or_of_other_classes_is_refused(tmp_path):
    folders = make_folds(tmp_path)
    (folders[1] / SAMPLE).unlink()
    with pytest.raises(InputError, match="is no sample of voxels"):
        join_folds(folders, tmp_path)
    other = json.loads((folders[1] / "metrics.json").read_text().replace("stomach", "spleen"))
    (folders[1] / "metrics.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="scores large_bowel, spleen, the first fold large_bowel, stomach"):
        join_folds(folders, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
