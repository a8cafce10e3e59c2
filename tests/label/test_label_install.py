"""What is wrong before the MONAI Label server starts, each as one sentence; and where it puts things."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from label_server import save_weights
from support import ROOT, TINY

from kvseg_monai.errors import InputError
from kvseg_monai.label import server
from kvseg_monai.label.install import install_bundle, make_app
from kvseg_monai.label.orthanc import configure, find_orthanc

NAME = "setr_kv_segmentation"
BUNDLE = ROOT / "bundles" / NAME
OPTIONS = {"network_def#size": "tiny", "image_size": [64, 64]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(NAME, tmp_path_factory.mktemp("weights") / "weights.pt")


def test_a_bundle_is_placed_with_its_options_and_what_is_trained_there_stays(weights, tmp_path):
    assert install_bundle(tmp_path, BUNDLE, weights=weights, overrides=OPTIONS) == NAME
    folder = tmp_path / "model" / NAME
    config = json.loads((folder / "configs" / "inference.json").read_text())
    assert (config["network_def"]["size"], config["image_size"]) == ("tiny", [64, 64])
    (folder / "models" / "model.pt").write_bytes(b"trained in the server")
    install_bundle(tmp_path, BUNDLE, weights=weights, overrides=OPTIONS)
    install_bundle(tmp_path, BUNDLE)
    assert (folder / "models" / "model.pt").read_bytes() == b"trained in the server"
    with pytest.raises(InputError, match=r"is there already, with other options \(network_def#size\)"):
        install_bundle(tmp_path, BUNDLE, weights=weights, overrides={"network_def#size": "base"})


def test_weights_of_another_attention_kind_leave_nothing_behind(tmp_path):
    other = save_weights(NAME, tmp_path / "other.pt", attention="qkv")
    with pytest.raises(InputError, match="holds the weights of another network"):
        install_bundle(tmp_path / "app", BUNDLE, weights=other, overrides=OPTIONS)
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize(
    ("bundle", "given", "sentence"),
    [
        ("no_such", {}, "there is no bundle no_such; give its folder, or the name of one in bundles/"),
        (BUNDLE, {}, f"there are no weights for {NAME}; give --weights FILE"),
        (BUNDLE, {"weights": "missing.pt"}, "the weights missing.pt are missing"),
    ],
)
def test_a_missing_bundle_and_missing_weights(tmp_path, bundle, given, sentence):
    with pytest.raises(InputError, match=sentence):
        install_bundle(tmp_path, bundle, **given)
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_and_one_that_is_none():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"port \d+ cannot be used \(Address already in use\)"):
            server.refuse_port(taken.getsockname()[1])
    with pytest.raises(InputError, match="port 70000 cannot be used"):
        server.refuse_port(70000)


def test_studies_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="missing is no folder; give a folder with NIfTI volumes"):
        server.refuse_studies(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="does not answer as a DICOMweb server"):
        server.refuse_studies("http://127.0.0.1:9/dicom-web")
    server.refuse_studies(str(tmp_path))


@pytest.mark.parametrize(
    ("packages", "sentence"),
    [
        ({}, "MONAI Label is not installed here; .* `make label` makes"),
        ({"monailabel": ""}, r"torchvision, .* does not fit the installed torch \(No module named 'torchvision'\)"),
        (
            {"monailabel": "", "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')"},
            r"does not fit the installed torch \(operator torchvision::nms does not exist\); install both",
        ),
    ],
)
def test_an_environment_in_which_the_server_cannot_start(tmp_path, monkeypatch, packages, sentence):
    for name, content in packages.items():
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "monailabel", raising=False)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(InputError, match=sentence):
        server.refuse_environment()


def test_the_command_line_says_it_in_one_sentence(tmp_path):
    line = [sys.executable, "-m", "kvseg_monai.label", "--studies", str(tmp_path / "missing"), "--port", "0", *TINY]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: --studies {tmp_path / 'missing'} is no folder; give a folder with NIfTI volumes, or the address of a "
        "DICOMweb server\n"
    )


def test_a_dicomweb_server_is_searched_for_mr(tmp_path):
    settings = server.environment(tmp_path, "http://127.0.0.1:8042/dicom-web")
    assert settings["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] == '{"Modality": "MR"}'
    assert "MONAI_LABEL_DICOMWEB_SEARCH_FILTER" not in server.environment(tmp_path, str(tmp_path))


@pytest.mark.parametrize("files", [{}, {"main.py": "print('mine')"}])
def test_a_folder_of_the_users_is_no_app(tmp_path, files):
    (tmp_path / "app" / "model" / NAME).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "app" / name).write_text(content)
    with pytest.raises(InputError, match=r"app is there and is no server's app; move it away"):
        make_app(tmp_path)
    with pytest.raises(InputError, match=rf"{NAME} is there and is no bundle, it lacks configs/metadata\.json"):
        install_bundle(tmp_path / "app", BUNDLE)
    assert {path.name: path.read_text() for path in tmp_path.glob("app/*.py")} == files


def test_what_is_in_the_place_of_orthancs_studies_is_refused(tmp_path):
    (tmp_path / "studies").mkdir()
    assert configure(tmp_path, port=8042) == configure(tmp_path, port=8043)
    (tmp_path / "studies" / "scan.dcm").write_text("Orthanc's by now")
    configure(tmp_path, port=8042)
    (tmp_path / "orthanc.json").unlink()
    with pytest.raises(InputError, match=r"studies is there, but no orthanc\.json of ours; move it away"):
        configure(tmp_path, port=8042)
    shutil.rmtree(tmp_path / "studies")
    (tmp_path / "orthanc.json").write_text("{}")
    with pytest.raises(InputError, match=r"orthanc\.json is there and was not written by kvseg_monai"):
        configure(tmp_path, port=8042)


def test_orthanc_listens_to_this_machine_alone(tmp_path, monkeypatch):
    settings = json.loads(configure(tmp_path, port=8042).read_text())
    assert (settings["RemoteAccessAllowed"], settings["DicomServerEnabled"]) == (False, False)
    monkeypatch.setattr("kvseg_monai.label.orthanc.PLUGIN", tmp_path / "none.so")
    with pytest.raises(InputError, match="apt install orthanc orthanc-dicomweb"):
        find_orthanc()
