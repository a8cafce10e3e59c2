"""The wheel alone: built, installed in an environment and a folder that know nothing of the checkout, and used."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import BUNDLES, ROOT

from kvseg_monai.bundle.find import SOURCES
from kvseg_monai.cli.demo import STEPS

pytestmark = pytest.mark.slow

SOURCE = ("kvseg_monai", "data_prep", "bundles", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
RESULTS = shutil.ignore_patterns("models", "eval", "__pycache__")


def succeed(*line: str | Path, folder: Path) -> str:
    result = subprocess.run([str(word) for word in line], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by pip from a copy of the sources, with weights and results in the bundles that must not get into it."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=RESULTS)
        else:
            shutil.copy(ROOT / name, source)
    for place in ("models/model.pt", "eval/metrics.json"):
        left = source / "bundles" / BUNDLES[0] / place
        left.parent.mkdir()
        left.write_text("somebody's own")
    succeed(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", "made", folder=source)
    (made,) = (source / "made").glob("kvseg_monai-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel; this one lends it the dependencies, and no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    programs = folder / "bin"
    install = ["-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps", "--no-index", wheel]
    succeed(sys.executable, *install, folder=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    lent = [place for place in sys.path if Path(place).name == "site-packages"]
    (packages / "lent.pth").write_text("\n".join(lent))  # a path file within a lent folder is not read
    return programs


def test_the_wheel_holds_bundles_examples_and_templates_alone(wheel):
    names = {
        name.removeprefix("kvseg_monai/shipped/") for name in zipfile.ZipFile(wheel).namelist() if "/shipped/" in name
    }
    bundles = {f"{bundle}/{path}" for bundle in BUNDLES for path in SOURCES}
    others = {
        str(path.relative_to(ROOT / "bundles"))
        for part in ("examples", "templates")
        for path in ROOT.glob(f"bundles/{part}/*")
    }
    assert names == bundles | others | {"bundles.yaml"}


def test_an_empty_folder_is_enough(installed, tmp_path):
    where = succeed(installed / "python", "-c", "import kvseg_monai; print(kvseg_monai.__file__)", folder=tmp_path)
    assert Path(where).is_relative_to(installed.parent)
    listed = succeed(installed / "kvseg", "bundles", folder=tmp_path)
    assert [line.split()[0] for line in listed.splitlines()[: len(BUNDLES)]] == sorted(BUNDLES)
    succeed(installed / "kvseg", "bundles", "copy", "cvt_kv", "mine", folder=tmp_path)
    assert (tmp_path / "mine" / "cvt_kv_segmentation" / "configs" / "train.json").is_file()


def test_the_demo_runs_from_end_to_end_and_writes_nothing_into_the_package(installed, tmp_path):
    before = sorted(installed.parent.rglob("shipped/**/*"))
    printed = succeed(installed / "kvseg", "demo", "--quick", folder=tmp_path)
    lines = [line for line in printed.splitlines() if " -m " in line]
    assert [line.split()[2] for line in lines] == [step.line.split()[0] for step in STEPS]
    assert all(str(installed.parent) in line for line in lines[2:])  # the bundle's folder
    made = tmp_path / "demo_quick"
    assert (made / "report.html").stat().st_size > 100_000
    scored = [case["case"] for case in json.loads((made / "evaluation" / "metrics.json").read_text())["cases"]]
    assert sorted(f"{name}.nii.gz" for name in scored) == sorted(p.name for p in (made / "label_maps").glob("*.nii.gz"))
    assert "Open demo_quick/report.html" in printed
    again = succeed(installed / "kvseg", "demo", "--quick", folder=tmp_path)
    assert " -m " not in again
    assert sorted(installed.parent.rglob("shipped/**/*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo_quick"]
