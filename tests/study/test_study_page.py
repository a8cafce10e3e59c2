"""A study's page: what it shows, in numbers and words, of arms whose numbers are made up."""

import csv
import html
import json
import re
import shutil

import pytest
import yaml
from made_study import make_study

from kvseg_monai.errors import InputError
from kvseg_monai.study.__main__ import main
from kvseg_monai.study.page import without_folders

WRITTEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")  # the minute may be another


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.partition("<main>")[2])).split())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two nets with a page."""
    path = make_study(tmp_path_factory.mktemp("study"), notice="Placeholder <mm>.")
    assert main(["report", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(study):
    return (study.parent / "out" / "report.html").read_text("utf-8")


def test_the_page_is_self_contained_and_light(page, study):
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<(script|link|iframe|object)\b|@import|url\(", page)
    assert page.count("<img") == page.count('alt="') == 4 + 2 + 2 + 1  # four scores, pairs and curves of two nets, cost
    assert len(page) < 1_000_000
    assert str(study.parent) not in page


def test_verdicts_are_those_of_the_comparisons(page, study):
    text = text_of(page)
    with (study.parent / "out" / "comparisons.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["class"], row["metric"]) == ("mean", "jaccard")]
    assert {(row["attention"], row["verdict"]) for row in rows} == {("kv", "equivalent"), ("kv_pos", "worse")}
    for row in rows:
        difference, low, high = (f"{float(row[name]):+.3f}" for name in ("difference", "low", "high"))
        assert f"{row['net']} {row['attention']} {row['verdict']} {difference} [{low}, {high}] -7.6 % -" in text
    assert "setr kv left ventricle " in text
    assert "weighted_jaccard" not in text


def test_scores_costs_and_remarks(page):
    text = text_of(page)
    assert "18 trained networks · 16 test patients · 3 seeds" in text
    assert re.search(r"setr kv_pos 3 0\.\d{4} \(0\.\d{4}\) .* 2,680,300 \d+\.\d+ G 62 s", text)
    assert "16 patients, 3 seeds." in text
    assert "within ±0.01 (p < 0.05, the patient is the unit)" in text
    assert "With few seeds the interval is too narrow" in text
    assert "It does not mean" in text
    assert "kv : attention without a query: the key is its own query" in text
    assert '<p class="banner" role="alert">Placeholder &lt;mm&gt;.</p>' in page


def test_the_gathered_files_are_enough_for_the_page(study, page, tmp_path):
    shutil.copytree(study.parent, tmp_path / "shipped", ignore=shutil.ignore_patterns("arms", "report*"))
    assert main(["report", str(tmp_path / "shipped" / study.name)]) == 0
    again = (tmp_path / "shipped" / "out" / "report.html").read_text("utf-8")
    assert WRITTEN.sub("", text_of(again)) == WRITTEN.sub("", text_of(page))
    assert WRITTEN.search(text_of(page))


def test_shipped_results_of_another_study_are_refused(study, tmp_path):
    shutil.copytree(study.parent, tmp_path / "shipped", ignore=shutil.ignore_patterns("arms"))
    content = yaml.safe_load(study.read_text())
    (tmp_path / "shipped" / study.name).write_text(yaml.safe_dump({**content, "seeds": [0, 1]}))
    with pytest.raises(InputError, match=r"results.csv has arms that the study file does not name: cvt-kv-2, "):
        main(["report", str(tmp_path / "shipped" / study.name)])


def test_how_it_was_made(page, study):
    rows = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page.partition("<h3>Study</h3>")[2].partition("<h3>")[0]))
    assert rows == {
        **{"Reference": "qkv", "Margin": "0.01", "Seeds": "0, 1, 2", "Epochs": "8", "Device": "A processor"},
        "Patients": "2 training, 1 validation, 16 test",
        "Versions": "kvseg_monai 0.1.0, commit 0123456789ab, torch 2.13.0",
        **{"Training, all arms": "18 min", "Scoring, all arms": "1 min 30 s"},
    }
    assert study.read_text() in html.unescape(page)
    assert "**Placeholder <mm>.**" in (study.parent / "out" / "report.md").read_text()


def test_the_page_goes_where_it_is_asked_for(tmp_path, capsys):
    path = make_study(tmp_path, nets=("setr",), seeds=1, patients=3)
    (tmp_path / "out" / "datalist.json").parent.mkdir(exist_ok=True)
    (tmp_path / "out" / "datalist.json").write_text(json.dumps({"notice": "From the data."}))
    assert main(["report", str(path), "--html", str(tmp_path / "pages" / "study.html")]) == 0
    assert f"wrote {tmp_path}/pages/study.html" in capsys.readouterr().out
    assert not (tmp_path / "out" / "report.html").exists()
    text = text_of((tmp_path / "pages" / "study.html").read_text("utf-8"))
    assert text.startswith("From the data.")
    assert "3 test patients · 1 seed (" in text
    assert 'With fewer than 6 patients every verdict is "undecided".' in text
    assert text.count("undecided at this sample size") >= 2


def test_an_unfinished_study_is_shown_as_far_as_it_is(tmp_path):
    path = make_study(tmp_path, nets=("setr",), seeds=2, patients=6)
    for name in ("setr-kv-0", "setr-kv-1", "setr-kv_pos-0", "setr-kv_pos-1", "setr-qkv-1"):
        (tmp_path / "out" / "arms" / name / "arm.json").unlink()
    (tmp_path / "out" / "arms" / "setr-qkv-0" / "curve.csv").unlink()
    assert main(["report", str(path)]) == 0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Not finished, and not in these tables: setr-kv-0, " in page
    assert "No kind can be compared yet" in page
    assert "<h2>Learning</h2>" not in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dataset_dir: /home/anna/data/acdc  # here", "dataset_dir: …/acdc  # here"),
        ("dataset_dir: '/data'", "dataset_dir: '…/data'"),
        (r"output_dir: C:\Users\anna\out", "output_dir: …/out"),
        ("output_dir: ~/studies/acdc", "output_dir: …/acdc"),
        ("split: split.json\nseeds: [0, 1]", "split: split.json\nseeds: [0, 1]"),
        ("dataset_dir: ../../data  # 1/2 of it", "dataset_dir: ../../data  # 1/2 of it"),
    ],
)
def test_folders_of_the_machine_are_cut_off(text, shown):
    assert without_folders(text) == shown
