"""What the bundles' reader makes of NIfTI files and DICOM folders: the same volume from both."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import series_uid, write_enhanced, write_series
from monai.bundle import create_workflow
from monai.transforms import LoadImage
from oracles import IntensityOracle
from support import BUNDLES, config

from kvseg_monai.errors import InputError
from kvseg_monai.readers import VolumeReader

TINY = {"network_def#size": "tiny", "image_size": [64, 64]}
UPRIGHT = np.array([[0, 0, 3.5, 7], [-1.5, 0, 0, 5], [0, 1.5, 0, -9], [0, 0, 0, 1.0]])


def oblique(affine: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return np.block([[turn @ affine[:3, :3], affine[:3, 3:]], [np.array([[0, 0, 0, 1.0]])]])


def on_canonical_axes(path: Path) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.load(path))


def test_nifti_comes_as_monai_reads_it(tmp_path):
    voxels = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, UPRIGHT), tmp_path / "a.nii.gz")
    ours, monais = (LoadImage(reader)(tmp_path / "a.nii.gz") for reader in (VolumeReader, "NibabelReader"))
    np.testing.assert_array_equal(ours, monais)
    np.testing.assert_array_equal(ours.affine, monais.affine)
    assert ours.meta.keys() == monais.meta.keys()


def test_a_series_folder_comes_in_geometric_order(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (5, 4, 6)).astype(np.int16)
    affine = oblique(np.diag([-1.2, -1.3, 3, 1]), 20)
    write_series(tmp_path / "a", voxels, affine, numbers=[3, 1, 6, 2, 5, 4])
    found = LoadImage(VolumeReader)(tmp_path / "a")
    np.testing.assert_array_equal(found, voxels)
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    scrambled = LoadImage("PydicomReader")(tmp_path / "a")  # the trap that the reader is there for
    assert not np.array_equal(scrambled, voxels)


def test_a_mistake_is_told_and_no_other_reader_tried(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no picture")
    (tmp_path / "a.png").write_bytes(b"no picture")
    load = LoadImage(VolumeReader)
    with pytest.raises(InputError, match=r"a\.nii\.gz is no readable NIfTI file .*; copy it again"):
        load(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz is missing; restore it"):
        load(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"a\.png holds no MR volume .a\.png: not a DICOM file"):
        load(tmp_path / "a.png")


def segment(source: Path, target: Path) -> None:
    """Run a bundle's inference over ``source`` with a network that knows the answer."""
    made = create_workflow(
        config_file=config(BUNDLES[0], "inference"),
        workflow_type="inference",
        bundle_root=str(target),
        dataset_dir=str(source),
        output_dir=str(target),
        handlers=[],
        **TINY,
    )
    made.parser["network"] = IntensityOracle()
    made.parser["postprocessing"]["transforms"][1]["nearest_interp"] = True
    made.parser.parse(reset=True)
    made.run()


@pytest.mark.parametrize("degrees", [0, 13])
def test_nifti_and_dicom_of_a_study_give_the_same_label_map(tmp_path, degrees):
    """Through the bundle's own transforms; the labels come back exactly, on the grid of the input."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(1, 4, (9, 7, 5)).repeat(6, 0).repeat(6, 1)  # body of 54 x 42 x 5 in classes 1 to 3
    label = np.pad(blocks, ((9, 21), (5, 16), (0, 0))).astype(np.uint8)
    image, affine = label.astype(np.int16) * 400, oblique(UPRIGHT, degrees)
    (tmp_path / "nifti").mkdir()
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "nifti" / "scan.nii.gz")
    write_series(tmp_path / "dicom" / "a", image, affine, numbers=rng.permutation(5), names=list("xyzab"))
    write_enhanced(tmp_path / "dicom" / "b", image, affine, order=rng.permutation(5), SeriesInstanceUID=series_uid("e"))
    for name in ("nifti", "dicom"):
        segment(tmp_path / name, tmp_path / f"{name}_out")
    expected = on_canonical_axes(tmp_path / "nifti_out" / "scan.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "nifti_out" / "scan.nii.gz").get_fdata(), label)
    found = sorted((tmp_path / "dicom_out").glob("*.nii.gz"))
    assert [path.name[:10] for path in found] == ["series004-"] * 2
    for path in found:
        made = on_canonical_axes(path)
        np.testing.assert_array_equal(made.get_fdata(), expected.get_fdata())
        np.testing.assert_allclose(made.affine, expected.affine, atol=1e-4)
