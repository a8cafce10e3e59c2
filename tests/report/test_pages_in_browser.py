"""Both pages in a real browser, wide and on a telephone: they fit, load whole, complain of nothing, ask no network."""

import pytest
from browser import CHROMIUM, chromium
from made_evaluation import make_evaluation, make_request
from made_study import make_study

from kvseg_monai.report import build_report
from kvseg_monai.study.__main__ import main

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install one to open the reports in a browser")
WIDTHS = (1100, 390)


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    evaluation = make_evaluation(folder / "evaluation")
    study = make_study(folder, nets=("setr",), seeds=2, patients=6)
    main(["report", str(study), "--html", str(folder / "study.html")])
    return {
        "evaluation": build_report(
            evaluation=evaluation, target=folder / "evaluation.html", attention=make_request(folder), notice="x " * 200
        ),
        "study": folder / "study.html",
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["evaluation", "study"])
def test_the_page_in_a_browser(browser, pages, name, width):
    found = browser.visit(pages[name], width=width)
    assert found["width"] == width
    assert (found["overflow"], found["wide"]) == (0, [])
    assert (found["broken"], found["nameless"], found["errors"]) == (0, 0, [])
    assert pages[name].as_uri() in found["requests"]
    assert {url.partition(":")[0] for url in found["requests"]} == {"file", "data"}
    assert "How this was made" in found["text"]


def test_the_browser_notices_what_is_wrong(browser, tmp_path):
    """Else the test above would pass whatever the page."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<meta name="viewport" content="width=device-width"><main><div style="width:2000px">wide</div>'
        '<img src="http://127.0.0.1:9/a.png" alt=""></main><script>console.error("no"); nothing.here()</script>'
    )
    found = browser.visit(page, width=390)
    assert found["overflow"] > 1000
    assert found["wide"][0].startswith("<div")
    assert (found["broken"], found["nameless"]) == (1, 1)
    assert len(found["errors"]) >= 2
    assert "http://127.0.0.1:9/a.png" in found["requests"]
