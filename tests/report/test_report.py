"""The report page, built from synthetic volumes, scores and a real TensorBoard event file."""

import base64
import io
import json
import re

import nibabel as nib
import numpy as np
import pytest
from made_evaluation import SHAPE, make_evaluation, make_request, save
from matplotlib import colors
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from kvseg_monai.errors import InputError
from kvseg_monai.report import build_report, find_prediction, read_metrics, read_scalars, slices
from kvseg_monai.report.__main__ import main
from kvseg_monai.report.page import duration
from kvseg_monai.utils.labels import COLOURS, colour_of


@pytest.fixture
def evaluation(tmp_path):
    return make_evaluation(tmp_path / "evaluation")


@pytest.fixture
def training(tmp_path):
    writer = SummaryWriter(tmp_path / "training" / "run")
    for step in range(200):
        writer.add_scalar("train_loss", 1 / (step + 1), step)
        writer.add_scalar("a/strange <tag>", step, step)
    for step in range(5):
        writer.add_scalar("val_mean_dice", step / 5, step)
    writer.close()
    return tmp_path / "training"


def build(evaluation, tmp_path, **options):
    return build_report(evaluation=evaluation, target=tmp_path / "new" / "report.html", **options).read_text("utf-8")


def edit(evaluation, change):
    path = evaluation / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))
    return metrics


def pixels(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).convert("RGB"), dtype=int)


def near(picture, colour):
    """Rows and columns of the pixels of about one colour."""
    return np.argwhere(np.abs(picture - np.array(colors.to_rgb(colour)) * 255).sum(-1) < 60)


def test_page_is_self_contained_and_shows_the_values(evaluation, training, tmp_path):
    page = build(evaluation, tmp_path, training=training, title="Two <organs>")
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<(script|link|iframe|object)\b|@import|url\(", page)
    sources = re.findall(r'<img [^>]*src="([^"]{20})', page)
    assert len(sources) == page.count("<img") == 1 + 3 + 3  # patients; best, median, worst; three curves
    assert all(re.match("data:image/(png|jpeg);", source) for source in sources)
    assert page.count('alt="') == page.count("<img")
    assert f"<b>{metrics['mean']['dice']:.3f}</b>" in page
    assert f"<td>{metrics['classes']['stomach']['jaccard']:.3f}</td>" in page
    assert f"{metrics['mean']['hd95_mm']:.1f} <small>mm" in page
    assert "<h1>Two &lt;organs&gt;</h1>" in page
    assert "a/strange &lt;tag&gt;" in page
    assert "4 scans of 4 patients" in page
    assert metrics["protocol"][:60] in page
    assert all(text in page for text in ("Best scan", "Median scan", "Worst scan", "Training loss", "torch"))
    assert str(tmp_path) not in page  # a page that travels must not name the machine's folders
    assert 'class="banner"' not in page


def test_the_manifest_describes_evaluation_and_training(evaluation, tmp_path):
    page = build(evaluation, tmp_path)
    assert "this evaluation has none of itself" in page
    manifest = {
        "started": "2026-01-02 03:04 UTC",
        "seconds": 200.0,
        "device": "A <processor>",
        "versions": {"kvseg_monai": "0.1.0", "Commit": "0123456789ab", "torch": "2.13.0"},
        **{"network": "SETR", "parameters": 2681540, "bundle": "setr_kv_segmentation"},
        "configuration": {"evaluate.json": "fa7de9f45992056c"},
        "overrides": {"network_def#size": "tiny"},
        "settings": {"seed": 3, "section": "test", "image_size": [128, 96], "spacing": [3.0, 3.0]},
    }
    edit(evaluation, lambda metrics: metrics.update(manifest=manifest))
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "training.json").write_text(json.dumps({**manifest, "epochs": 140, "seconds": 8000}))
    page = build(evaluation, tmp_path, training=tmp_path / "training")
    rows = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    expected = {
        "Bundle": "setr_kv_segmentation",
        "Configuration": "evaluate.json, sha256 fa7de9f45992056c…",
        "Overrides": "network_def#size = tiny",
        "Network": "SETR, 2,681,540 parameters",
        "Scans": "the datalist&#39;s test list",
        "Image size": "128 x 96 pixels",
        "Pixel size": "3.0 x 3.0 mm",
        "Seed": "3",
        "Device": "A &lt;processor&gt;",
        "Started": "2026-01-02 03:04 UTC",
        "Took": "3 min 20 s",
        "Versions": "kvseg_monai 0.1.0, commit 0123456789ab, torch 2.13.0",
    }
    assert expected.items() <= set(rows)
    assert {("Epochs", "140"), ("Took", "2 h 13 min")} <= set(rows)
    assert "<b>2.68 <small>million</small></b><strong>Parameters" in page
    assert "<b>50.0 <small>s</small></b><strong>Per scan" in page  # 200 s for four


@pytest.mark.parametrize("content", ["no JSON", "[1, 2]"])
def test_a_damaged_training_record_is_refused(evaluation, tmp_path, content):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "training.json").write_text(content)
    with pytest.raises(InputError, match=r"training.json is not what a training writes there; move it away"):
        build(evaluation, tmp_path, training=tmp_path / "training")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (59.0, "59.0 s"),
        (92, "1 min 32 s"),
        (1107, "18 min"),
        (7199, "2 h 00 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations(seconds, written):
    assert duration(seconds) == written


@pytest.mark.parametrize(("net", "attention"), [("SETR", "kv_pos"), ("CvT", "qkv")])
def test_attention_maps_key_bias_and_cost(evaluation, tmp_path, net, attention):
    page = build(evaluation, tmp_path, attention=make_request(tmp_path, net, attention))
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "patient2_day0, slice 4 of 6, as the network sees it" in text  # the median case, its fullest slice
    assert page.count('alt="Attention of layer') in (3, 6)  # of at most two structures, three layers each
    assert page.count('alt="Key bias of layer') == (3 if attention == "kv_pos" else 0)
    assert ("Temperature a" in text) == (attention == "kv_pos")
    assert ("every second row and column" in text) == (net == "CvT")
    assert re.search(r"\d\.\d\d million Parameters", text)
    assert re.search(r"\d\.\d\d billion MACs per slice For 32 x 32 pixels", text)
    assert "sha256" in text
    assert str(tmp_path) not in page
    assert len(page) < 1_000_000


def test_every_protocol_and_the_kaggle_score_are_shown(evaluation, tmp_path):
    metrics = json.loads((evaluation / "metrics.json").read_text())
    text = re.sub(r"<[^>]+>", " ", build(evaluation, tmp_path))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for title, name in (("Per volume", "per_volume"), ("All slices", "all_slices")):
        for scores in (metrics["protocols"][name]["mean"], *metrics["protocols"][name]["classes"].values()):
            cells = [scores[key] for key in ("dice", "jaccard", "weighted_jaccard") if key in scores]
            cells = " ".join(f"{cell:.3f}" for cell in cells)
            assert f"{title} {cells} {scores['hd95_mm']:.1f} {scores['kaggle']:.3f}" in rows
        assert metrics["protocols"][name]["protocol"][:30] in text
    for scores in (metrics["kaggle"]["mean"], *metrics["kaggle"]["classes"].values()):
        assert any(row.startswith(f"Kaggle-like {scores['dice']:.3f} – – ") for row in rows)
    assert f"here {metrics['kaggle']['mean']['hausdorff']:.3f}" in text


def test_an_evaluation_without_protocols_is_shown_without_them(evaluation, tmp_path):
    edit(evaluation, lambda metrics: metrics.pop("protocols"))
    assert "By volume or by slice?" not in build(evaluation, tmp_path)


@pytest.mark.parametrize(
    ("extra", "option", "text"),
    [
        ({}, "made of <wax>", "made of &lt;wax&gt;"),
        ({"notice": "from the file"}, None, "from the file"),
        ({"notice": "from the file"}, "given", "given"),
        ({"phantom": True}, None, "Phantom data"),
    ],
)
def test_banner(evaluation, tmp_path, extra, option, text):
    edit(evaluation, lambda metrics: metrics.update(extra))
    assert f'<p class="banner" role="alert">{text}' in build(evaluation, tmp_path, notice=option)


def test_missing_and_damaged_volumes_are_noted_in_place(evaluation, tmp_path):
    (evaluation / "data/images/patient0_day0.nii.gz").unlink()
    (evaluation / "patient2_day0/patient2_day0_seg.nii.gz").unlink()
    (evaluation / "data/labels/patient3_day0.nii.gz").write_bytes(b"no volume")
    page = build(evaluation, tmp_path)
    assert "The image was not found (patient0_day0.nii.gz)." in page
    assert "No predicted label map was found; give its folder as --predictions." in page
    assert "The label could not be read (patient3_day0.nii.gz:" in page
    assert page.count("<img") == 1


def test_volumes_of_other_shapes_are_noted(evaluation, tmp_path):
    save(np.zeros((5, 5, 5), np.uint8), evaluation / "patient0_day0/patient0_day0_seg.nii.gz")
    save(np.zeros((5, 5), np.float32), evaluation / "data/images/patient3_day0.nii.gz")
    page = build(evaluation, tmp_path)
    assert "The prediction has shape (5, 5, 5), the image (24, 20, 6)" in page
    assert "The image is not a single 3D volume of numbers (patient3_day0.nii.gz: shape (5, 5))" in page


def test_undefined_scores_are_a_dash(evaluation, tmp_path):
    def blank(metrics):
        for scores in (metrics["mean"], *metrics["cases"], *(c["classes"]["stomach"] for c in metrics["cases"])):
            scores.update(dice=None, hd95_mm=None)

    edit(evaluation, blank)
    page = build(evaluation, tmp_path)
    assert "<b>–</b><strong>Dice" in page
    assert "No scan has a defined Dice score" in page
    assert "None" not in page


@pytest.mark.parametrize(("keep", "places"), [(1, ["Only"]), (2, ["Best", "Worst"]), (3, ["Best", "Median", "Worst"])])
def test_few_cases(evaluation, tmp_path, keep, places):
    edit(evaluation, lambda metrics: metrics.update(cases=metrics["cases"][:keep]))
    assert re.findall(r"<h3>(\w+) scan", build(evaluation, tmp_path)) == places


def test_training_without_event_files_is_noted(evaluation, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.out.tfevents.damaged").write_bytes(b"nonsense")
    assert "No TensorBoard event file with curves" in build(evaluation, tmp_path, training=tmp_path / "empty")
    assert "<h2>Training</h2>" not in build(evaluation, tmp_path)


def test_a_resumed_run_overrides_the_steps_it_repeats(tmp_path):
    for name, start, value in (("first", 0, 1.0), ("second", 3, 2.0)):
        writer = SummaryWriter(tmp_path / name)
        for step in range(start, 5):
            writer.add_scalar("lr", value, step, walltime=1000.0 * value)
        writer.close()
    assert read_scalars(tmp_path) == {"lr": [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]}


def test_relative_paths_are_beside_the_metrics(evaluation, tmp_path):
    def shorten(metrics):
        for case in metrics["cases"]:
            case.update({key: case[key].replace(f"{evaluation}/", "") for key in ("image", "label")})

    edit(evaluation, shorten)
    assert build(evaluation, tmp_path).count("<img") == 4


def test_find_prediction(tmp_path):
    case = {"case": "a", "image": str(tmp_path / "a.nii.gz"), "label": None}
    for name in ("a.nii.gz", "a_day2_seg.nii.gz", "sub/ab_seg.nii.gz"):
        save(np.zeros(SHAPE, np.uint8), tmp_path / name)
    with pytest.raises(slices.PictureError, match="No predicted label map"):  # neither the image nor another case's
        find_prediction(case, tmp_path)
    for name in ("out/a.nii.gz", "out/a/a_seg.nii.gz"):  # each better than the one before
        save(np.zeros(SHAPE, np.uint8), tmp_path / name)
        assert find_prediction(case, tmp_path) == tmp_path / name
    save(np.zeros(SHAPE, np.uint8), tmp_path / "more/a_seg.nii")
    with pytest.raises(slices.PictureError, match="2 files named"):
        find_prediction(case, tmp_path)
    recorded = save(np.zeros(SHAPE, np.uint8), tmp_path / "odd.nii.gz")
    assert str(find_prediction({**case, "prediction": recorded}, tmp_path)) == recorded


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([-1.5, -1.5, 3.0, 1.0]),
        np.diag([1.5, 1.5, 3.0, 1.0]),
        np.array([[0, 0, 1.5, 0], [1.5, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 0, 1]]),
    ],
)
def test_axial_view_is_radiological(tmp_path, affine):
    """A mark at the patient's left, front and foot side appears on the right, at the top, in the first slice."""
    shape = (8, 10, 12)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    right, front, head = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index)
    mark = (right == right.min()) & (front == front.max()) & (head == head.min())
    volume = slices.read_volume(save(mark.astype(np.uint8), tmp_path / "v.nii.gz", affine), role="image")
    data, turned = volume.voxels, volume.affine
    assert np.argwhere(data[:, :, 0].T).tolist() == [[0, data.shape[0] - 1]]
    assert nib.affines.voxel_sizes(turned).tolist() == [1.5, 1.5, 3.0]


def test_overlay_takes_the_fullest_slice_with_true_aspect(tmp_path):
    label, image = np.zeros((20, 20, 5), np.uint8), np.zeros((20, 20, 5), np.float32)
    label[2, 2, 0] = 1
    label[2:6, 2:10, 3] = 2
    affine = np.diag([-1.0, -2.0, 5.0, 1.0])
    path = save(label, tmp_path / "label.nii.gz", affine)
    picture = slices.draw_overlay(
        image=save(image, tmp_path / "i.nii.gz", affine), label=path, prediction=path, classes=2
    )
    assert (picture["slice"], picture["slices"]) == (4, 5)
    drawn = pixels(picture["src"])
    assert drawn.shape[0] == pytest.approx(2 * drawn.shape[1], abs=2)
    rows, columns = near(drawn, colour_of(1)).T / drawn.shape[1] * 20  # in mm
    assert (rows.min(), rows.max()) == pytest.approx((2 * 2, 10 * 2), abs=0.6)
    assert (columns.min(), columns.max()) == pytest.approx((2, 6), abs=0.6)
    assert not len(near(drawn, colour_of(0)))


def test_prediction_is_solid_and_reference_dashed(tmp_path):
    blank, organ = np.zeros((40, 40, 2), np.uint8), np.zeros((40, 40, 2), np.uint8)
    organ[10:30, 10:30, 1] = 1
    paths = {name: save(a, tmp_path / f"{name}.nii.gz") for name, a in (("blank", blank), ("organ", organ))}
    inked = {
        role: len(near(pixels(slices.draw_overlay(image=paths["blank"], classes=1, **masks)["src"]), COLOURS[0]))
        for role, masks in {
            "label": {"label": paths["organ"], "prediction": paths["blank"]},
            "prediction": {"label": paths["blank"], "prediction": paths["organ"]},
        }.items()
    }
    assert 0.3 * inked["prediction"] < inked["label"] < 0.85 * inked["prediction"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metrics.json is not valid JSON"),
        ("[]", 'lacks part of "mean", "classes" or "cases"'),
        ('{"mean": {}, "classes": {}, "cases": []}', 'lacks part of "mean", "classes" or "cases"'),
        ('{"mean": {"dice": 1}, "classes": {}, "cases": [{}]}', 'lacks part of "mean", "classes" or "cases"'),
    ],
)
def test_broken_metrics_are_refused(tmp_path, text, message):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_metrics(tmp_path / "metrics.json")


def test_missing_inputs_are_refused(evaluation, tmp_path):
    with pytest.raises(InputError, match=r"metrics.json does not exist; write it with the bundle's evaluate.json"):
        build(tmp_path / "nowhere", tmp_path)
    for option in ("training", "predictions"):
        with pytest.raises(InputError, match="nowhere is not a folder"):
            build(evaluation, tmp_path, **{option: tmp_path / "nowhere"})
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        build_report(evaluation=evaluation, target=tmp_path)


def test_attention_maps_by_the_command_line(evaluation, tmp_path, capsys):
    request = make_request(tmp_path)
    line = ["--evaluation", str(evaluation), "--target", str(tmp_path / "out.html"), "--bundle", request.bundle]
    line += ["--weights", request.weights, "--case", "patient0_day0", "--slice", "3"]
    line += [part for name, value in request.overrides.items() for part in (f"--{name}", str(value))]
    main([*line, "--dataset_dir", "elsewhere"])  # places are of no use here, and no mistake either
    assert "patient0_day0, slice 3 of 6" in (tmp_path / "out.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "somewhere"], "--bundle is for attention maps, which need both --bundle and --weights"),
        (["--slice", "3"], "--slice is for attention maps, which need both"),
        (["--titel", "x"], "--titel is unknown; --help lists the options"),
    ],
)
def test_options_that_do_not_fit(evaluation, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        main(["--evaluation", str(evaluation), "--target", str(tmp_path / "out.html"), *options])


def test_command_line(evaluation, tmp_path, capsys):
    target = tmp_path / "out.html"
    main(["--evaluation", str(evaluation), "--target", str(target), "--title", "My title"])
    assert "<h1>My title</h1>" in target.read_text("utf-8")
    assert capsys.readouterr().out == f"wrote {target}\n"
