"""Requests to the real MONAI Label server that name what is not there, or paths, and options of all sorts."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from label_server import finished, label_server, save_weights
from support import ROOT, make_volume

pytest.importorskip("monailabel", reason="MONAI Label is not installed here; `make test-label` makes its environment")
pytestmark = pytest.mark.label

NAME = "setr_kv_segmentation"
STUDIES = ("first", "second", "third", "here")


class Server:
    """The server, its folders, and requests to it as any program sends them."""

    def __init__(self, client: Any, models: Path, root: Path) -> None:
        self.client, self.models, self.root = client, models / NAME / "models", root
        self.address = client.get_server_url().rstrip("/")

    def ask(self, method: str, path: str, **what: Any) -> Any:
        import requests  # MONAI Label brings it

        return requests.request(method, f"{self.address}{path}", timeout=600, **what)

    def infer(self, image: str | None = None, params: Any = None, **what: Any) -> Any:
        query = {**({} if image is None else {"image": image}), **what.pop("query", {})}
        text = params if isinstance(params, str) else json.dumps(params or {})
        return self.ask("POST", f"/infer/{NAME}", params=query, data={"params": text}, **what)

    def refusal(self, answer: Any, status: int) -> str:
        """What the client gets: one sentence."""
        assert answer.status_code == status, answer.text[:500]
        assert answer.headers["content-type"] == "application/json"
        sentence = answer.json()["detail"]
        assert "\n" not in sentence
        return sentence

    def tree(self) -> dict[str, bytes]:
        """The user's files: the studies, and what lies beside them and in the working directory."""
        folders = [self.root / name for name in ("images", "beside", "work")]
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in found if path.suffix in (".gz", ".txt")}


def save_volume(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(make_volume(seed, (40, 36, 4))[0], np.diag([3.0, 3.0, 4.0, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with four made volumes, in a working directory that has files of the same and of other names."""
    root = tmp_path_factory.mktemp("http")
    for seed, name in enumerate(STUDIES):
        save_volume(root / "images" / f"{name}.nii.gz", seed)
    save_volume(root / "beside" / "other.nii.gz", 10)
    save_volume(root / "work" / "volume.nii.gz", 11)
    save_volume(root / "work" / "here" / "volume.nii.gz", 12)  # a folder with the name of an image
    served = {"bundles": [str(ROOT / "bundles" / NAME)], "weights": [save_weights(NAME, root / "weights.pt")]}
    with label_server(root / "server", root / "images", cwd=root / "work", **served) as (client, models):
        yield Server(client, models, root)


def unknown(server: Server) -> list[str]:
    """Names of no image: paths, from the studies, the working directory or the root; and files in these places."""
    relative = ["", ".", "..", "/", "../beside/other", "../beside/other.nii.gz", "images/first", "first.nii.gz", "a\0b"]
    absolute = [
        str(server.root / "beside" / "other.nii.gz"),
        str(server.root / "images"),
        str(server.root / "images/first"),
    ]
    return [*relative, *absolute, "nope", "volume.nii.gz", "./volume.nii.gz", "~", "file:///etc/hosts", "*", "%2e%2e"]


def test_an_unknown_image_is_not_found_and_nothing_else_is_segmented(server):
    before = server.tree()
    for name in unknown(server):
        assert "there is no image" in server.refusal(server.infer(name), 404), name
        assert "there is no image" in server.refusal(server.infer("first", {"image": name or ".."}), 404), name
    raw = server.ask("POST", f"/infer/{NAME}?image=%2e%2e%2fbeside%2fother.nii.gz")
    assert "there is no image" in server.refusal(raw, 404)
    assert "there is no image" in server.refusal(server.infer(), 404)
    assert "whole" not in server.refusal(server.ask("POST", f"/infer/wsi_v2/{NAME}", params={"image": "first"}), 400)
    for name in ("nope", "..", "../sessions", str(server.root)):
        assert "there is no session" in server.refusal(server.infer(query={"session_id": name}), 404)
    assert "no model 'nope'" in server.refusal(server.ask("POST", "/infer/nope", params={"image": "first"}), 404)
    batch = server.ask("POST", f"/batch/infer/{NAME}", json={"images": [str(server.root / "beside" / "other.nii.gz")]})
    assert "there is no image" in server.refusal(batch, 404)
    assert server.tree() == before


def test_an_image_is_that_of_the_studies_whatever_the_working_directory_holds(server, tmp_path):
    answer, _ = server.client.infer(NAME, "here", {})
    session = server.client.create_session(str(server.root / "images" / "here.nii.gz"))["session_id"]
    again, _ = server.client.infer(NAME, "a name of the viewer's own", {}, session_id=session)
    uploaded, _ = server.client.infer(NAME, "", {}, file=str(server.root / "images" / "here.nii.gz"))
    maps = [nib.load(file).get_fdata() for file in (answer, again, uploaded)]
    assert len(np.unique(maps[0])) > 1
    assert all(np.array_equal(maps[0], each) for each in maps)
    other, _ = server.client.infer(NAME, "first", {})
    assert not np.array_equal(maps[0], nib.load(other).get_fdata())


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/datastore/image", "image"),
        ("HEAD", "/datastore/image", "image"),
        ("DELETE", "/datastore/image", "id"),
        ("DELETE", "/datastore/", "id"),
        ("GET", "/datastore/image/info", "image"),
        ("PUT", "/datastore/image/info", "image"),
        ("GET", "/datastore/label", "label"),
        ("HEAD", "/datastore/label", "image"),
        ("PUT", "/datastore/label", "image"),
        ("DELETE", "/datastore/label", "id"),
        ("GET", "/datastore/label/info", "label"),
        ("PUT", "/datastore/label/info", "label"),
    ],
)
def test_images_and_labels_are_read_and_written_by_name_alone(server, method, path, key):
    before = server.tree()
    files = {"files": {"label": ("label.nii.gz", b"content")}} if (method, path) == ("PUT", "/datastore/label") else {}
    for name in unknown(server):
        answer = server.ask(method, path, params={key: name, "tag": "final"}, **files)
        assert answer.status_code == 404, (name, answer.text)
        assert method == "HEAD" or "there is no image" in server.refusal(answer, 404)
    for tag in ("..", "../../beside", str(server.root / "beside")):
        answer = server.ask(method, path, params={key: "first", "tag": tag}, **files)
        assert answer.status_code == 404
    assert server.tree() == before


def test_an_image_that_is_sent_replaces_none(server):
    before = server.tree()
    other = (server.root / "beside" / "other.nii.gz").read_bytes()

    def send(name: str, content: bytes, file: str = "scan.nii.gz") -> Any:
        return server.ask("PUT", "/datastore/image", params={"image": name}, files={"file": (file, content)})

    assert "there is another image 'first'" in server.refusal(send("first", other), 400)
    assert "there is another image 'first'" in server.refusal(send("", other, "first.nii.gz"), 400)
    assert "there is another image 'first'" in server.refusal(send("first", other, "scan.nii"), 400)
    for name in ("..", "../beside/other", str(server.root / "beside" / "new"), "labels/final/first"):
        assert "there is no image" in server.refusal(send(name, other), 404)
    assert server.tree() == before
    assert send("first", before[str(server.root / "images" / "first.nii.gz")]).json() == {"image": "first"}
    assert send("new", other).json() == {"image": "new"}
    assert server.tree() == {**before, str(server.root / "images" / "new.nii.gz"): other}
    assert server.ask("DELETE", "/datastore/image", params={"id": "new"}).status_code == 200
    assert server.tree() == before


@pytest.mark.parametrize("value", [None, "", [], {}, [""]])
def test_an_empty_or_unknown_option_is_answered(server, value):
    plain, _ = server.client.infer(NAME, "first", {})
    known = ("run_id", "device", "model_filename", "logging", "result_extension", "result_dtype", "label_tag", "image")
    unknown = ("foo", "result", "pred", "latencies", "labels", "image_meta_dict", "skip_writer", "session", "model")
    file, answer = server.client.infer(NAME, "first", dict.fromkeys([*known, *unknown], value))
    np.testing.assert_array_equal(nib.load(file).get_fdata(), nib.load(plain).get_fdata())
    assert answer["label_names"]


def test_options_of_all_sorts_are_answered(server):
    sent = {"result": "x", "pred": 1, "latencies": "x", "labels": 3, "image_meta_dict": "x", "skip_writer": True}
    paths = {"session": {"image": "/etc/passwd"}, "label": "/etc/passwd", "image_path": "/etc/passwd"}
    assert server.infer("first", {**sent, **paths, "result_write_to_file": False}).status_code == 200
    for text in ("", "null", "[]", '{"device": ["cpu"]}', '{"result_compress": "false"}'):
        assert server.infer("first", text).status_code == 200
    for text in ("{", "[1]", "1"):
        assert "the params of the request are no JSON" in server.refusal(server.infer("first", text), 400)
    refused = [("device", "no such"), ("logging", "x"), ("result_extension", "/../x.nii"), ("result_dtype", "object")]
    for name, value in refused:
        assert f"the option {name} of the request is" in server.refusal(server.infer("first", {name: value}), 400)
    for value in ("nope.pt", "../model.pt", str(server.root / "weights.pt")):
        assert "there " in server.refusal(server.infer("first", {"model_filename": value}), 404)
    assert "there is no strategy" in server.refusal(server.ask("POST", "/activelearning/nope", json={}), 404)
    assert server.ask("POST", "/activelearning/first", json={"strategy": {}, "x": [1]}).json()["id"] in STUDIES


def test_a_label_map_is_saved_where_that_is_asked_for(server):
    saved = server.root / "images" / "labels"
    assert server.infer("first", {"save_label": "false"}).status_code == 200
    assert not (saved / "original" / "first.nii.gz").exists()
    assert "never a path" in server.refusal(server.infer("first", {"save_label": True, "label_tag": "../x"}), 404)
    assert server.infer("first", {"save_label": True}).status_code == 200
    assert (saved / "original" / "first.nii.gz").is_file()
    status = server.ask("POST", f"/batch/infer/{NAME}", json={"label_tag": "", "run_id": "", "gpus": []})
    assert status.status_code == 200, status.text
    done = finished(lambda: server.ask("GET", "/batch/infer").json())
    assert done["status"] == "DONE", done["details"]
    assert {path.name for path in (saved / "original").glob("*.nii.gz")} == {f"{name}.nii.gz" for name in STUDIES}


def test_a_training_with_empty_and_unknown_options_is_done_and_a_wrong_one_is_refused(server):
    for seed, name in enumerate(STUDIES[:3]):
        path = server.root / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(make_volume(seed, (40, 36, 4))[1], np.diag([3.0, 3.0, 4.0, 1.0])), path)
        server.client.save_label(name, str(path), "final", {})

    def train(**options: Any) -> str:
        answer = server.ask("POST", f"/train/{NAME}", json={"max_epochs": 1, "val_split": 0.34, **options})
        assert answer.status_code == 200, answer.text
        ended = finished(server.client.train_status)
        return "\n".join([ended["status"], *ended["details"]])

    before = (server.models / "model.pt").read_bytes()
    empty = {"run_id": "", "gpus": None, "tracking": [], "tracking_uri": "", "model_filename": "", "device": {}}
    assert train(**empty, client_id="someone", foo={"bar": [1]}, bundle_path="/").startswith("DONE")
    assert train(pretrained="false").startswith("DONE")
    assert before in [path.read_bytes() for path in server.models.glob("*.pt")]
    assert "there is no 'nope' to run" in train(run_id="nope")
    assert "the weights" in train(model_filename="nope.pt")

    # Weights of another network are refused, where MONAI Label would train on with what fits.
    torch.save({"weight": torch.zeros(1)}, server.models / "other.pt")
    assert "holds the weights of another network" in train(model_filename="other.pt")
    for options in ({"gpus": {"a": 1}}, {"max_epochs": "two"}, {"val_split": 2}, {"tracking": "/etc/settings.json"}):
        answer = server.ask("POST", f"/train/{NAME}", json=options)
        assert "the option" in server.refusal(answer, 400)
    assert "there is no model 'nope'" in server.refusal(server.ask("POST", "/train/nope", json={}), 404)
