import csv
import hashlib
from itertools import pairwise

import numpy as np
import pytest
from made_raw import prepare
from PIL import Image

from data_prep.phantom import write as phantom
from data_prep.phantom.write import SIZES, draw_scan, main, plan_scans, write_phantom
from data_prep.uw_madison.layout import BAD_SCANS
from data_prep.uw_madison.rle import decode
from data_prep.uw_madison.table import CLASSES
from kvseg_monai.errors import InputError


@pytest.fixture(scope="module")
def scans():
    """Pictures (n, height, width) and masks of four scans, one of each size."""
    drawn = []
    for plan in plan_scans(4, slices=24, seed=3):
        slices = list(draw_scan(plan))
        masks = {organ: np.stack([masks[organ] for _, _, masks in slices]) for organ in CLASSES}
        drawn.append((np.stack([picture for _, picture, _ in slices]), masks))
    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("phantom") / "raw"
    write_phantom(target, scans=4, slices=8)
    return target


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def test_layout(folder):
    pictures = sorted(folder.glob("train/case*/case*_day*/scans/slice_*.png"))
    assert len(pictures) == 4 * 8
    for path in pictures[::8]:
        width, height = map(int, path.stem.split("_")[2:4])
        with Image.open(path) as image:
            assert image.size == (width, height)
            assert image.text["Comment"].startswith("PHANTOM")
            assert np.asarray(image).max() > 255
    sizes = {tuple(path.stem.split("_")[2:5]) for path in pictures}
    assert sizes == {(str(width), str(height), spacing) for width, height, spacing in SIZES}
    with (folder / "train.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 8 * 3
    assert (folder / "README.txt").read_text().startswith("PHANTOM")


def test_the_preparation_reads_it(folder, tmp_path):
    summary = prepare(folder, tmp_path / "out")
    assert (summary["scans"], summary["patients"], summary["excluded_bad_scans"]) == (4, 3, [])
    assert all(count >= 4 for count in summary["slices_per_class"].values())
    assert summary["overlap_pixels"] > 0
    assert all(summary["split"].values())
    assert "PHANTOM" in (tmp_path / "out" / "datalist.json").read_text()


def test_same_seed_same_files_whatever_the_workers(folder, tmp_path):
    write_phantom(tmp_path / "again", scans=4, slices=8, workers=2)
    write_phantom(tmp_path / "other", scans=4, slices=8, seed=1)
    assert digest(tmp_path / "again") == digest(folder) != digest(tmp_path / "other")


def test_names_are_never_those_of_bad_scans():
    assert not BAD_SCANS & {plan.name for plan in plan_scans(300)}


def test_cases_have_one_or_two_days():
    assert [plan.name for plan in plan_scans(5)] == [
        "case1_day1", "case2_day1", "case3_day1", "case3_day2", "case4_day1",
    ]  # fmt: skip


def test_about_half_of_the_slices_hold_no_organ(scans):
    filled = [np.any([masks[organ].any((1, 2)) for organ in CLASSES], axis=0).mean() for _, masks in scans]
    assert 0.4 < np.mean(filled) < 0.6


def test_organs_are_large_and_where_they_belong(scans):
    for pictures, masks in scans:
        middle = pictures.shape[2] / 2
        for organ in CLASSES:
            present = masks[organ][masks[organ].any((1, 2))]
            assert len(present) >= 5
            assert present.sum((1, 2)).mean() > 500
        stomach, small = (np.argwhere(masks[organ]).mean(0) for organ in ("stomach", "small_bowel"))
        assert stomach[0] < small[0]  # nearer to the head
        assert stomach[2] > middle + 10  # on the patient's left
        large = np.argwhere(masks["large_bowel"])[:, 2]
        assert large.min() < middle - 40
        assert large.max() > middle + 40


def best_band_dice(pictures, mask, bins=64):
    """Dice of the best gray band, all pairs of limits tried; the gray scale is this scan's own."""
    level = np.clip(pictures / np.percentile(pictures, 99.5) * bins, 0, bins - 1).astype(int)
    inside = np.r_[0, np.bincount(level[mask], minlength=bins).cumsum()]
    everywhere = np.r_[0, np.bincount(level.ravel(), minlength=bins).cumsum()]
    hits, found = (total[None, :] - total[:, None] for total in (inside, everywhere))
    return (2 * hits / np.maximum(found + inside[-1], 1)).max()


def test_no_threshold_solves_it(scans):
    """Even if the limits are chosen on the labels of the very scan, slices without the organ being left out."""
    for organ in CLASSES:
        scores = []
        for pictures, masks in scans:
            present = masks[organ].any((1, 2))
            scores.append(best_band_dice(pictures[present], masks[organ][present]))
        assert 0.02 < np.mean(scores) < 0.4, (organ, scores)


def test_the_band_search_finds_a_band():
    pictures = np.array([[[1, 5, 5, 9]]])
    assert best_band_dice(pictures, pictures == 5) == pytest.approx(1.0)


def test_neighbours_agree():
    plan = plan_scans(1, slices=144)[0]
    slices = [masks["small_bowel"] for number, _, masks in draw_scan(plan) if 95 <= number <= 100]
    for one, two in pairwise(slices):
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.7


def test_two_days_are_one_body_with_other_organs():
    first, second = plan_scans(4, slices=8)[2:]
    one, two = phantom.make_body(np.random.default_rng([0, 3])), phantom.make_body(np.random.default_rng([0, 3]))
    assert (first.case, second.case) == (3, 3)
    assert one.width == two.width
    organs = [phantom.make_organs(one, np.random.default_rng([0, 3, plan.day])) for plan in (first, second)]
    assert not np.allclose(organs[0].stomach.centres, organs[1].stomach.centres)


def test_masks_in_the_table_are_those_drawn(folder):
    plan = plan_scans(4, slices=8)[1]
    with (folder / "train.csv").open(newline="") as stream:
        rows = {(row["id"], row["class"]): row["segmentation"] for row in csv.DictReader(stream)}
    for number, _, masks in draw_scan(plan):
        for organ in CLASSES:
            text = rows[f"{plan.name}_slice_{number:04d}", organ]
            assert np.array_equal(decode(text, (plan.height, plan.width)), masks[organ])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scans": 0}, "--scans is 0; it must be from 1"),
        ({"slices": 0}, "--slices is 0; it must be from 1 to 9999"),
        ({"workers": 0}, "--workers is 0"),
        ({"seed": -1}, "--seed is -1; it must be 0 or above"),
    ],
)
def test_wrong_numbers(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_phantom(tmp_path / "out", **{"scans": 1, **options})
    assert not list(tmp_path.iterdir())


def test_targets(tmp_path, capsys):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds files that are not a phantom; give a new or empty folder"):
            write_phantom(target, scans=1, slices=1, overwrite=overwrite)
    (target / "mine.txt").unlink()
    arguments = ["--target", str(target), "--scans", "1", "--slices", "2", "--workers", "1"]
    assert main(arguments) == 0
    assert "PHANTOM" in capsys.readouterr().out
    with pytest.raises(InputError, match="already holds a phantom; give a new folder, or add --overwrite"):
        main(arguments)
    assert main([*arguments, "--seed", "2", "--overwrite"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "write_scan", stop)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", scans=2, slices=2)
    assert not list(tmp_path.iterdir())
