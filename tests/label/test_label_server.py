"""The bundles in the real MONAI Label server, by its real client: from annotation to training and back."""

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from label_server import environment, finished, label_server, save_weights
from support import BUNDLES

from kvseg_monai.utils.labels import CODES, colours_of

pytest.importorskip("monailabel", reason="MONAI Label is not installed here; `make test-label` makes its environment")
pytestmark = pytest.mark.label

LABELS = {name: value for value, name in enumerate(CODES, start=1)}


def refused(call, *arguments) -> str:
    """What the client gets."""
    from monailabel.client.client import MONAILabelClientException

    with pytest.raises(MONAILabelClientException) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture(scope="module")
def studies(real_data, tmp_path_factory) -> Path:
    """Five real volumes; their label maps are beside them in ``given``, which the server does not search."""
    root = tmp_path_factory.mktemp("studies")
    (root / "images").mkdir()
    (root / "given").mkdir()
    for path in sorted((real_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[:5]:
        shutil.copy(path, root / "images")
        shutil.copy(real_data / "hippocampus" / "labelsTr" / path.name, root / "given")
    return root


@pytest.fixture
def images(studies, tmp_path) -> Path:
    """A copy, since the server writes into it."""
    return Path(shutil.copytree(studies / "images", tmp_path / "images"))


def by_bundle(folder: Path, image: Path, target: Path) -> nib.Nifti1Image:
    """The label map by `monai.bundle run` of the server's copy of the bundle, whose defaults are the weights'."""
    run = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(folder / "configs" / "inference.json")]
    line = [*run, "--bundle_root", str(folder), "--dataset_dir", str(image), "--output_dir", str(target)]
    result = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return nib.load(target / image.name)


def deploy(bundle: Path, weights: Path) -> None:
    line = [sys.executable, "-m", "kvseg_monai.deploy", str(bundle), "--weights", str(weights)]
    subprocess.run(line, env=environment(), check=True)


def check_info(info: dict, name: str) -> None:
    model = info["models"][name]
    assert model["labels"] == LABELS
    assert model["label_colors"] == colours_of(LABELS)
    assert model["type"] == "segmentation"
    assert name in info["trainers"]


def score(client, name: str) -> dict[str, float]:
    """Score all volumes without a label by uncertainty; id -> entropy."""
    url = f"{client.get_server_url()}/scoring/{name}"
    request = urllib.request.Request(url, method="POST", data=b"{}", headers={"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).close()
    info = finished(lambda: json.loads(urllib.request.urlopen(f"{client.get_server_url()}/scoring/").read()))
    assert info["status"] == "DONE", info
    entries = client.datastore()["objects"].items()
    facts = {key: entry["image"]["info"].get("epistemic_entropy") for key, entry in entries}
    return {key: value for key, value in facts.items() if value is not None}


@pytest.mark.parametrize("name", ["setr_kv_segmentation", "transunet_kv_segmentation", "cvt_kv_segmentation"])
def test_a_round_from_annotation_to_training_and_back(name, studies, images, tmp_path):
    weights = save_weights(name, tmp_path / "weights.pt")
    with label_server(tmp_path / "server", images, bundles=[name], weights=[weights]) as (client, models):
        check_info(client.info(), name)
        ids = sorted(client.datastore()["objects"])
        assert len(ids) == 5

        # Inference: the server's mask is the bundle's.
        file, info = client.infer(name, ids[0], {})
        assert info["label_names"] == LABELS
        image = images / f"{ids[0]}.nii.gz"
        expected, found = by_bundle(models / name, image, tmp_path / "predicted"), nib.load(file)
        assert len(np.unique(expected.get_fdata())) > 1
        np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())
        np.testing.assert_allclose(found.affine, nib.load(image).affine, atol=1e-5)

        # Annotation: labels go back to the server.
        for key in ids[:3]:
            client.save_label(key, str(studies / "given" / f"{key}.nii.gz"), "final", {})
        assert sum("final" in entry["labels"] for entry in client.datastore()["objects"].values()) == 3

        # Training, two epochs, and inference with what came of it.
        before = torch.load(models / name / "models" / "model.pt", weights_only=True)
        client.train_start(name, {"max_epochs": 2, "val_split": 0.34})
        done = finished(client.train_status)
        assert done["status"] == "DONE", done["details"]
        folder = models / name / "models"
        if (folder / "model_candidate.pt").is_file():  # two epochs may well be worse than none
            deploy(models / name, folder / "model_candidate.pt")
        assert json.loads((folder / "training.json").read_text())["epochs"] == 2
        (kept,) = folder.glob("model_2*.pt")
        same = torch.load(kept, weights_only=True)
        assert all(torch.equal(before[key], same[key]) for key in before)
        again, _ = client.infer(name, ids[0], {})
        trained = by_bundle(models / name, image, tmp_path / "trained")
        np.testing.assert_array_equal(nib.load(again).get_fdata(), trained.get_fdata())
        assert (trained.get_fdata() != expected.get_fdata()).any()
        deploy(models / name, kept)
        back, _ = client.infer(name, ids[0], {})
        np.testing.assert_array_equal(nib.load(back).get_fdata(), expected.get_fdata())

        # The next volume: any of those without a label, or the one that is least certain.
        assert client.next_sample("random", {})["id"] in ids[3:]
        entropies = score(client, name)
        assert set(entropies) == set(ids[3:])
        assert all(value > 0 for value in entropies.values())
        assert client.next_sample("epistemic", {})["id"] == max(entropies, key=entropies.get)


def test_all_bundles_load_and_infer_in_one_server(images, tmp_path):
    weights = [save_weights(name, tmp_path / f"{name}.pt") for name in BUNDLES]
    with label_server(tmp_path / "server", images, bundles=BUNDLES, weights=weights) as (client, _):
        info = client.info()
        assert set(info["models"]) == set(BUNDLES)
        key = sorted(client.datastore()["objects"])[0]
        shape = nib.load(images / f"{key}.nii.gz").shape
        for name in BUNDLES:
            check_info(info, name)
            file, _ = client.infer(name, key, {})
            found = nib.load(file)
            assert found.shape == shape
            assert set(np.unique(found.get_fdata())) <= {0, *LABELS.values()}


def test_what_is_refused_reaches_the_client_as_a_sentence_and_the_server_goes_on(studies, images, tmp_path):
    name = "setr_kv_segmentation"
    broken = nib.load(sorted(images.glob("*.nii.gz"))[0])
    nib.save(nib.Nifti1Image(np.full(broken.shape, np.nan, np.float32), broken.affine), images / "broken.nii.gz")
    weights = save_weights(name, tmp_path / "weights.pt")
    with label_server(tmp_path / "server", images, bundles=[name], weights=[weights]) as (client, models):
        model = models / name / "models" / "model.pt"
        ids = sorted(client.datastore()["objects"])
        assert "broken.nii.gz has" in refused(client.infer, name, "broken", {})

        def train() -> str:
            client.train_start(name, {"max_epochs": 1})
            ended = finished(client.train_status)
            assert ended["status"] == "ERROR"
            return "\n".join(ended["details"])

        before = model.read_bytes()
        assert "InputError: there are 0 labelled cases to train on" in train()
        client.save_label(ids[-1], str(studies / "given" / f"{ids[-1]}.nii.gz"), "final", {})
        assert "InputError: there are 1 labelled cases to train on and 0 to validate on" in train()
        assert model.read_bytes() == before

        # Weights that were put there by hand, of the same network with another attention kind.
        save_weights(name, model, attention="qkv")
        assert "holds the weights of another network" in refused(client.infer, name, ids[-1], {})
        model.write_bytes(before)
        client.infer(name, ids[-1], {})
