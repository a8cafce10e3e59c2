"""A label map lies where its image lies, for every program: the part of the header that says where is the image's own.

Programs differ in what they go by: nibabel by the sform if it has a code, ITK by the qform where the sform has shear,
SPM and FSL by the codes, and each in its own way where neither has one.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, SaveImage
from oracle_inference import oracle_inference, scan_of

from kvseg_monai.data.nifti import write_volume
from kvseg_monai.data.nifti_geometry import GEOMETRY
from kvseg_monai.data.readers import VolumeReader
from kvseg_monai.data.writers import AtomicNibabelWriter

UPRIGHT = np.array([[-1.5, 0, 0, 12.5], [0, -1.25, 0, -33.25], [0, 0, 4, 7.125], [0, 0, 0, 1]])
RIGHT_HANDED = UPRIGHT @ np.diag([-1, 1, 1, 1])
ANGLE = np.radians(17)
OBLIQUE = np.array(
    [[1, 0, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE), 0], [0, np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 0, 1]]
)
SHEAR = np.eye(4) + 0.2 * np.eye(4, k=1) * [1, 1, 0, 0]
FAR = np.eye(4) + 40 * np.eye(4, k=3)

HEADERS = {  # qform, its code, sform, its code
    "no codes": (UPRIGHT, 0, UPRIGHT, 0),
    "no codes, forms elsewhere": (FAR @ UPRIGHT, 0, OBLIQUE @ UPRIGHT, 0),
    "qform alone": (OBLIQUE @ UPRIGHT, 1, UPRIGHT, 0),
    "sform alone": (UPRIGHT, 0, OBLIQUE @ UPRIGHT, 2),
    "both": (UPRIGHT, 1, UPRIGHT, 1),
    "template": (UPRIGHT, 1, FAR @ OBLIQUE @ UPRIGHT, 4),
    "qform to another scan": (OBLIQUE @ UPRIGHT, 2, FAR @ UPRIGHT, 1),
    "sheared": (UPRIGHT, 1, UPRIGHT @ SHEAR, 1),
    "sheared alone": (UPRIGHT, 0, UPRIGHT @ SHEAR, 1),
    "other sizes": (UPRIGHT, 1, UPRIGHT @ np.diag([1.1, 0.9, 1, 1]), 3),
    "right-handed": (RIGHT_HANDED, 1, RIGHT_HANDED, 1),
    "right-handed, oblique": (OBLIQUE @ RIGHT_HANDED, 1, OBLIQUE @ RIGHT_HANDED, 2),
}


def image_file(path: Path, header: str, *, kind: type = nib.Nifti1Image, shape: tuple = (6, 5, 4), **fields) -> Path:
    """A file whose header has that place, what a map must not take over, and further fields."""
    voxels = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    made = kind(voxels, np.eye(4))
    qform, qcode, sform, scode = HEADERS[header]
    made.header["xyzt_units"] = fields.pop("xyzt_units", 10)
    made.header.set_qform(qform, qcode)
    made.header.set_sform(sform, scode)
    for name, value in {"descrip": b"Doe^Jane", "aux_file": b"MRN-4711", "intent_name": b"Doe", **fields}.items():
        made.header[name] = value
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(made.dataobj, None, made.header), path)
    return path


def write_map(image: Path, folder: Path) -> nib.Nifti1Image:
    """Load the image as the bundles do, and write it as a label map."""
    save = SaveImage(
        output_dir=folder, output_postfix="", output_dtype=np.uint8, separate_folder=False, resample=False,
        print_log=False, writer=AtomicNibabelWriter,
    )  # fmt: skip
    Compose([LoadImage(VolumeReader, image_only=True), EnsureChannelFirst(), lambda x: x > 400, save])(image)
    (made,) = folder.glob("*.nii.gz")
    return nib.load(made)


def place(header: nib.Nifti1Header) -> dict[str, np.ndarray]:
    fields = {name: np.asarray(header[name], float) for name in GEOMETRY}
    return fields | {"pixdim": fields["pixdim"][:4]}


def assert_at_place(made: nib.Nifti1Image, image: Path) -> None:
    wanted = nib.load(image)
    for name, value in place(wanted.header).items():
        np.testing.assert_allclose(place(made.header)[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(made.affine, wanted.affine, rtol=1e-6)


@pytest.mark.parametrize("header", HEADERS)
def test_a_map_has_the_place_of_its_image(header, tmp_path):
    image = image_file(tmp_path / "in" / "a.nii.gz", header)
    made = write_map(image, tmp_path / "out")
    assert_at_place(made, image)
    assert (made.shape, made.get_data_dtype()) == ((6, 5, 4), np.uint8)
    np.testing.assert_array_equal(np.asarray(made.dataobj), nib.load(image).get_fdata() > 400)


FORMS = {
    "metres and seconds": {"xyzt_units": 9},
    "micrometres": {"xyzt_units": 3},
    "no units": {"xyzt_units": 0},
    "NIfTI-2": {"kind": nib.Nifti2Image},
    "one slice": {"shape": (6, 5, 1)},
    "a fourth axis": {"shape": (6, 5, 4, 1), "pixdim": [-1, 1.5, 1.25, 4, 2.5, 0, 0, 0]},
    "five axes": {"shape": (6, 5, 4, 1, 1)},
    "slope": {"scl_slope": 0.5, "scl_inter": 100},
}


@pytest.mark.parametrize("form", FORMS)
def test_of_files_of_every_form(form, tmp_path):
    image = image_file(tmp_path / "in" / "a.nii", "template", **FORMS[form])
    made = write_map(image, tmp_path / "out")
    assert_at_place(made, image)
    assert made.shape == (6, 5, FORMS[form].get("shape", (6, 5, 4))[2])
    assert set(np.unique(made.get_fdata())) == {0, 1}
    assert made.header["scl_slope"] in (1, 0) or np.isnan(made.header["scl_slope"])


def test_a_big_endian_file(tmp_path):
    image = image_file(tmp_path / "in" / "little.nii", "template")
    little = nib.load(image)
    big = nib.Nifti1Image(np.asarray(little.dataobj), None, little.header.as_byteswapped(">"))
    nib.save(big, tmp_path / "in" / "a.nii")
    assert nib.load(tmp_path / "in" / "a.nii").header.endianness == ">"
    assert_at_place(write_map(tmp_path / "in" / "a.nii", tmp_path / "out"), image)


def test_nothing_else_of_the_header_is_taken(tmp_path):
    """It may identify the patient."""
    made = write_map(image_file(tmp_path / "in" / "a.nii.gz", "template", cal_max=900), tmp_path / "out")
    assert b"Doe" not in made.header.binaryblock
    assert b"4711" not in made.header.binaryblock
    assert not made.header.extensions
    assert made.header["cal_max"] == 0


def test_inference_keeps_the_place(tmp_path):
    """Through the bundles' own transforms, which turn the image, resample it, and turn the map back."""
    label_map = np.random.default_rng(0).integers(0, 4, (26, 22, 5)).astype(np.uint8)
    for number, (qform, qcode, sform, scode) in enumerate(HEADERS.values()):
        made = nib.Nifti1Image(scan_of(label_map), np.eye(4))
        made.header.set_qform(qform, qcode)
        made.header.set_sform(sform, scode)
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(made.dataobj, None, made.header), tmp_path / "in" / f"{number}.nii.gz")
    oracle_inference(tmp_path / "in", tmp_path / "out").run()
    for number in range(len(HEADERS)):
        assert_at_place(nib.load(tmp_path / "out" / f"{number}.nii.gz"), tmp_path / "in" / f"{number}.nii.gz")


def test_a_map_of_dicom_slices_is_in_scanner_coordinates(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)
    write_series(tmp_path / "in", voxels, OBLIQUE @ UPRIGHT)
    made = write_map(tmp_path / "in", tmp_path / "out")
    for form, code in (made.header.get_qform(coded=True), made.header.get_sform(coded=True)):
        np.testing.assert_allclose(form, OBLIQUE @ UPRIGHT, atol=1e-4)
        assert code == 1
    assert made.header.get_xyzt_units()[0] == "mm"


def test_a_map_that_is_on_another_grid_is_placed_by_its_own_affine(tmp_path):
    """As one that was not brought back, whose image's header would misplace it."""
    image = LoadImage(VolumeReader, image_only=True)(image_file(tmp_path / "in" / "a.nii.gz", "template"))
    writer = AtomicNibabelWriter(output_dtype=np.uint8)
    writer.set_data_array(image[None, ::2])
    writer.set_metadata({**image.meta, "affine": image.affine.numpy() @ np.diag([2, 1, 1, 1])}, resample=False)
    writer.write(tmp_path / "out.nii.gz")
    made = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(made.affine, image.affine.numpy() @ np.diag([2, 1, 1, 1]), rtol=1e-5)
    assert (made.shape, int(made.header["sform_code"])) == ((3, 5, 4), 1)


@pytest.mark.parametrize(("affine", "code"), [(UPRIGHT, 1), (OBLIQUE @ RIGHT_HANDED, 1), (UPRIGHT @ SHEAR, 0)])
def test_prepared_volumes_lie_at_one_place_for_all_programs(affine, code, tmp_path):
    """A qform that cannot say where a sheared volume lies is left out; image and labels are written alike."""
    for name, kind in (("image", np.int16), ("label", np.uint8)):
        write_volume(tmp_path / f"{name}.nii.gz", np.ones((6, 5, 4), kind), affine)
    image, label = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("image", "label"))
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (code, 1)
    if code:
        np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    for name, value in place(image.header).items():
        np.testing.assert_array_equal(place(label.header)[name], value)
