"""Verdicts on hand-made numbers, intervals on simulated ones, and the comparison of arms that must match."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from support import ROOT

from kvseg_monai.errors import InputError
from kvseg_monai.study import compare, results, statistics
from kvseg_monai.study.statistics import Difference, difference, interval, tost_p, verdict

MARGIN = 0.01


def simulate(rng, mean, *, patients=16, seeds=3, patient_sd=0.01, seed_sd=0.002, noise=0.005):
    """Differences (S, P) with an effect of the patient, one of the seed, and noise."""
    effect = rng.normal(0, patient_sd, (1, patients)) + rng.normal(0, seed_sd, (seeds, 1))
    return mean + effect + rng.normal(0, noise, (seeds, patients))


def judge(differences, **options):
    return verdict(difference(np.asarray(differences, float), MARGIN), MARGIN, **options)


def test_known_answers():
    rng = np.random.default_rng(0)
    small = {"patient_sd": 0.003, "seed_sd": 0.001, "noise": 0.002}
    assert judge(simulate(rng, 0, **small)) == "equivalent"
    assert judge(simulate(rng, 0.003, **small)) == "equivalent"  # certain, but within the margin
    assert judge(simulate(rng, -0.05)) == "worse"
    assert judge(simulate(rng, 0.05)) == "better"
    assert judge(simulate(rng, 5.0), higher_is_better=False) == "worse"
    assert judge(simulate(rng, 0.005, patient_sd=0.04)) == "undecided at this sample size"


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (np.zeros((3, 16)), "equivalent"),
        (np.full((3, 16), -0.05), "worse"),
        (np.full((3, 16), MARGIN), "better"),  # on the margin is not within
        (np.zeros((3, 5)), "undecided at this sample size"),  # too few patients
        (np.zeros((3, 1)), "undecided at this sample size"),
        (np.full((3, 16), np.nan), "undecided at this sample size"),
        (np.zeros((1, 16)), "equivalent"),  # one seed: patients alone are drawn
    ],
)
def test_without_variance_or_numbers(differences, expected):
    assert judge(differences) == expected


def test_a_seed_that_disagrees_forbids_equivalence():
    """The equivalence test sees patients alone; the interval knows that another training may end elsewhere."""
    rng = np.random.default_rng(1)
    differences = np.array([[-0.02], [0.0], [0.02]]) + rng.normal(0, 0.001, (3, 16))
    found = difference(differences, MARGIN)
    assert found.tost_p < 0.001
    assert verdict(found, MARGIN) == "undecided at this sample size"


def test_no_margin_means_no_equivalence():
    assert verdict(difference(np.zeros((3, 16))), None) == "undecided at this sample size"


def test_rules_at_their_edges():
    def found(low, high, p=0.01, patients=6):
        return Difference(patients=patients, seeds=3, mean=(low + high) / 2, low=low, high=high, tost_p=p)

    assert verdict(found(-0.009, 0.009), MARGIN) == "equivalent"
    assert verdict(found(-0.009, 0.009, p=0.05), MARGIN) == "undecided at this sample size"
    assert verdict(found(-0.009, 0.011), MARGIN) == "undecided at this sample size"
    assert verdict(found(0.001, 0.009, p=0.06), MARGIN) == "better"
    assert verdict(found(-0.05, -0.01), MARGIN) == "worse"
    assert verdict(found(-0.05, -0.01, patients=5), MARGIN) == "undecided at this sample size"


def test_tost_is_the_larger_of_two_one_sided_tests():
    values = np.random.default_rng(2).normal(0.002, 0.01, 16)
    sides = [ttest_1samp(values, -0.01, alternative="greater"), ttest_1samp(values, 0.01, alternative="less")]
    assert tost_p(values, 0.01) == pytest.approx(max(side.pvalue for side in sides), rel=1e-9)
    assert math.isnan(tost_p(values[:1], 0.01))


def test_an_undefined_hd95_leaves_out_its_pair_alone():
    differences = np.tile(np.arange(8.0), (3, 1))
    differences[:, 7] = np.nan  # a patient without any
    differences[0, 0] = np.nan
    found = difference(differences)
    assert (found.patients, found.seeds) == (7, 3)
    assert found.mean == pytest.approx(np.nanmean(differences))
    assert found.low < found.mean < found.high


def test_the_interval_covers_the_truth(monkeypatch):
    """Of 200 simulated studies with three seeds, about 95 % hold the true difference; few seeds make it fewer."""
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(3)
    bounds = np.array([interval(simulate(rng, 0.004)) for _ in range(200)])
    covered = ((bounds[:, 0] <= 0.004) & (bounds[:, 1] >= 0.004)).mean()
    assert 0.88 <= covered <= 0.99


def test_few_studies_of_a_true_difference_at_the_margin_claim_equivalence(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(4)
    claims = [judge(simulate(rng, MARGIN)) for _ in range(200)]
    assert claims.count("equivalent") / 200 <= 0.05


def rows(attention, seed, jaccard, *, net="setr", patients=8, hd95=2.0):
    shared = {"net": net, "attention": attention, "seed": seed, "volumes": 1, **dict.fromkeys(results.OF_ARM, 1)}
    scores = {**dict.fromkeys(results.SCORES, jaccard), "hd95_mm": hd95}
    names = [(f"p{number}", name) for number in range(patients) for name in ("liver", "mean")]
    return pd.DataFrame([{**shared, "patient": patient, "class": name, **scores} for patient, name in names])


def test_arms_are_paired_by_net_and_seed():
    """Seed 2 of kv has no reference and another net has none at all: neither takes part."""
    arms = (("qkv", 0, 0.8), ("qkv", 1, 0.6), ("kv", 0, 0.75), ("kv", 1, 0.55), ("kv", 2, 0.1))
    made = pd.concat([*(rows(*arm) for arm in arms), rows("own", 0, 0.9, net="unet")])
    found = compare.comparisons(compare.tabulate(made), reference="qkv", margin=MARGIN).to_dict("records")
    assert {(row["net"], row["attention"]) for row in found} == {("setr", "kv")}
    assert [(r["class"], r["metric"]) for r in found] == [
        *(("mean", metric) for metric in ("jaccard", "weighted_jaccard", "dice", "hd95_mm")),
        *(("liver", metric) for metric in ("jaccard", "dice", "hd95_mm")),
    ]
    first = found[0]
    assert first["difference"] == pytest.approx(-0.05)
    assert (first["seeds"], first["patients"], first["verdict"]) == (2, 8, "worse")
    assert first["reference_mean"] == pytest.approx(0.7)
    assert math.isnan(found[3]["margin"])


def test_arms_of_other_patients_do_not_match():
    with pytest.raises(
        InputError, match=r"setr-qkv-0 and setr-kv-0 were not scored on the same patients: .* patient p7"
    ):
        compare.tabulate(pd.concat([rows("qkv", 0, 0.8), rows("kv", 0, 0.8, patients=7)]))


def test_a_row_that_is_there_twice_is_refused():
    with pytest.raises(InputError, match=r"the arm setr-qkv-0 has two rows of patient p0, class liver"):
        compare.tabulate(pd.concat([rows("qkv", 0, 0.8)] * 2))


def test_what_is_undefined_is_an_empty_cell(tmp_path):
    made = pd.concat([rows("qkv", 0, 0.8, hd95=math.nan), rows("kv", 0, 0.8)])
    found = compare.comparisons(compare.tabulate(made), reference="qkv", margin=MARGIN)
    text = compare.write_comparisons(tmp_path / "comparisons.csv", found).read_text()
    assert "setr,kv,qkv,mean,hd95_mm,1,0,,2.0,,,,,,undecided at this sample size" in text


PUBLISHED = ROOT / "bundles" / "studies" / "acdc" / "results"


def compare_published(rows: pd.DataFrame) -> pd.DataFrame:
    return compare.comparisons(compare.tabulate(rows), reference="qkv", margin=MARGIN)


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return results.read_rows(PUBLISHED / results.FILE)


def test_published_comparisons_come_out_again(published, tmp_path):
    """Processors add up in other orders, so the last of sixteen digits may be another."""
    found = compare_published(published)
    assert len(found) == 143
    path = compare.write_comparisons(tmp_path / "comparisons.csv", found)
    made, earlier = (pd.read_csv(folder / path.name) for folder in (tmp_path, PUBLISHED))
    pd.testing.assert_frame_equal(made, earlier, rtol=1e-12, atol=1e-15)


def test_results_are_read_by_the_names_of_their_columns(published, tmp_path):
    columns = [*reversed(published.columns), "surface_dice"]
    path = tmp_path / "results.csv"
    published.assign(surface_dice=0.5)[columns].to_csv(path, index=False)
    pd.testing.assert_frame_equal(results.read_rows(path), published)


def test_results_that_are_older_than_a_metric_are_compared_without_it(published, tmp_path):
    path = tmp_path / "results.csv"
    arms = published[(published["net"] == "unet") | published["attention"].isin(["qkv", "k"])]
    arms.drop(columns="hd95_mm").to_csv(path, index=False)
    found = compare_published(results.read_rows(path))
    assert set(found["metric"]) == {"jaccard", "weighted_jaccard", "dice"}


@pytest.mark.parametrize("column", ["class", "training_seconds"])
def test_a_missing_column_is_named_and_nothing_is_to_be_deleted(published, tmp_path, column):
    path = tmp_path / "results.csv"
    published.drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=rf"results\.csv, line 1: there is no column {column}; give the file") as error:
        results.read_rows(path)
    assert "delete" not in str(error.value)


def test_names_and_numbers_stay_as_they_were_written(tmp_path):
    made = rows("qkv", 0, 0.1 + 0.2).replace({"patient": {"p0": "007", "p1": "NA", "p2": "1e3"}})
    read = results.read_rows(results.write_rows(tmp_path / "results.csv", made))
    assert list(read["patient"].unique()[:3]) == ["007", "NA", "1e3"]
    assert (read["jaccard"] == 0.1 + 0.2).all()
