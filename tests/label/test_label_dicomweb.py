"""A DICOM study in a real Orthanc, segmented through the real MONAI Label server, in which OHIF shows it."""

import json
import sys
import urllib.request

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import series_uid, write_series
from label_server import free_port, label_server, running, save_weights

from kvseg_monai.label.orthanc import find_orthanc
from kvseg_monai.utils.geometry import onto_grid
from kvseg_monai.utils.labels import CODES

pytest.importorskip("monailabel", reason="MONAI Label is not installed here; `make test-label` makes its environment")
pytestmark = pytest.mark.label

NAME = "setr_kv_segmentation"
SERIES = series_uid("of the volume")


@pytest.fixture(scope="module")
def volume(real_data) -> nib.Nifti1Image:
    return nib.load(sorted((real_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[0])


@pytest.fixture(scope="module")
def orthanc(volume, tmp_path_factory):
    """The address of an Orthanc that holds one MR series of a real volume."""
    try:
        find_orthanc()
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("orthanc")
    address = f"http://127.0.0.1:{(port := free_port())}"
    line = [sys.executable, "-m", "kvseg_monai.label.orthanc", "--target", str(folder), "--port", str(port)]
    with running(line, log=folder.with_suffix(".log"), address=f"{address}/system"):
        voxels = np.asarray(volume.dataobj).astype(np.int16)
        facts = {"SeriesInstanceUID": SERIES, "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "1"}
        for path in write_series(folder / "dicom", voxels, volume.affine, **facts):
            urllib.request.urlopen(f"{address}/instances", data=path.read_bytes(), timeout=60).close()
        yield address


def test_a_study_of_a_dicom_server_is_segmented_and_the_label_goes_back(orthanc, volume, tmp_path):
    import requests  # MONAI Label brings it; the answers are compressed

    weights = save_weights(NAME, tmp_path / "weights.pt")
    with label_server(tmp_path / "server", f"{orthanc}/dicom-web", bundles=[NAME], weights=[weights]) as (client, _):
        assert client.next_sample("random", {})["id"] == SERIES
        file, reported = client.infer(NAME, SERIES, {"result_extension": ".nii.gz"})
        assert list(reported["label_names"]) == list(CODES)
        found = nib.load(file)
        for name in ("", "..", "../dicom", "1.2.3", str(tmp_path)):
            answer = requests.post(f"{client.get_server_url()}/infer/{NAME}", params={"image": name}, timeout=60)
            assert (answer.status_code, "there is no image" in answer.json()["detail"]) == (404, True)
        turned = onto_grid(found.get_fdata(), found.affine, shape=volume.shape, target=volume.affine)
        assert turned is not None
        assert len(np.unique(turned)) > 1

        # Saved, it is a DICOM SEG of the study, with the labels' names.
        segments = [{"name": name} for name in CODES]
        client.save_label(SERIES, file, "final", {"label_info": segments})
        series = json.loads(urllib.request.urlopen(f"{orthanc}/dicom-web/series?Modality=SEG").read())
        assert len(series) == 1
        instance = json.loads(
            urllib.request.urlopen(
                f"{orthanc}/tools/find", data=b'{"Level":"Instance","Query":{"Modality":"SEG"}}'
            ).read()
        )
        made = tmp_path / "seg.dcm"
        made.write_bytes(urllib.request.urlopen(f"{orthanc}/instances/{instance[0]}/file").read())
        present = {name for name, value in reported["label_names"].items() if (turned == value).any()}
        assert {segment.SegmentLabel for segment in pydicom.dcmread(made).SegmentSequence} == present

        # OHIF comes with the server, and the study reaches it.
        page = urllib.request.urlopen(f"{client.get_server_url()}/ohif/", timeout=60).read().decode()
        assert "OHIF" in page
        studies = requests.get(f"{client.get_server_url()}/proxy/dicom/qido/studies", timeout=60)
        assert len(studies.json()) == 1
