"""Broken NIfTI files through the inference bundle: a sentence, or a label map on the grid that the file declares."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from oracle_inference import oracle_inference
from support import make_volume, names_in

from kvseg_monai.errors import InputError

# Fields of the NIfTI-1 header: place and type of the numbers there.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "6f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
SHORTS = st.sampled_from([-32768, -1, 0, 1, 2, 3, 4, 7, 16, 64, 128, 512, 1536, 2304, 32767]) | st.integers(-99, 99)
FLOATS = st.sampled_from([0.0, -1.0, 1e-6, 0.04, 49.0, 1e9, np.nan, np.inf, -np.inf]) | st.floats(width=32)
BYTES = st.integers(0, 255)
NUMBERS = {"h": SHORTS, "i": SHORTS, "f": FLOATS, "B": BYTES}


@st.composite
def breakages(draw: st.DrawFn) -> tuple:
    """What to do to a file: write numbers into the header, change bytes, or cut it; before or after compression."""
    kind = draw(st.sampled_from(["field", "field", "field", "two fields", "bytes", "cut"]))
    compressed = draw(st.booleans())
    if kind in ("field", "two fields"):
        count = 1 if kind == "field" else 2
        return kind, compressed, [_place_and_value(draw) for _ in range(count)]
    if kind == "bytes":
        return kind, compressed, draw(st.lists(st.tuples(st.floats(0, 1), BYTES), min_size=1, max_size=5))
    return kind, compressed, draw(st.floats(0, 1))


def _place_and_value(draw: st.DrawFn) -> tuple[int, bytes]:
    place, numbers = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
    if numbers.endswith("s"):
        return place, draw(st.binary(min_size=4, max_size=4))
    kind = numbers[-1]
    index = draw(st.integers(0, int(numbers[:-1] or 1) - 1))
    value = draw(NUMBERS[kind])
    return place + index * struct.calcsize(kind), struct.pack(f"<{kind}", value)


def broken(whole: bytes, kind: str, compressed: bool, change: object) -> bytes:
    """The bytes of the file, compressed or not."""
    content = bytearray(whole)
    if "field" in kind:
        for place, value in change:
            content[place : place + len(value)] = value
    content = bytearray(gzip.compress(bytes(content), 1)) if compressed else content
    if kind == "bytes":
        for place, value in change:
            content[min(int(place * len(content)), len(content) - 1)] = value
    return bytes(content[: int(change * len(content))] if kind == "cut" else content)


@pytest.fixture(scope="module")
def inference(tmp_path_factory):
    """The inference bundle with a network that needs no weights, its folder of inputs, and one valid file's bytes."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "in").mkdir()
    volume = nib.Nifti1Image(make_volume(0, (20, 18, 3))[0], np.diag([-1.5, -1.5, 3, 1]))
    nib.save(volume, folder / "in" / "scan.nii.gz")
    made = oracle_inference(folder / "in", folder / "eval")
    made.run()
    return made.parser, folder, volume.to_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breakage=breakages())
def test_a_broken_file_gives_a_sentence_or_a_label_map_on_its_grid(inference, breakage):
    parser, folder, whole = inference
    source = folder / "in" / f"scan{'.nii.gz' if breakage[1] else '.nii'}"
    source.write_bytes(broken(whole, *breakage))
    target = folder / "eval" / "scan.nii.gz"
    target.unlink(missing_ok=True)
    parser.get_parsed_content("dataset").data = [{"image": str(source)}]
    parser.get_parsed_content("evaluator").run()
    if target.exists():
        event("segmented")
        parser.get_parsed_content("bad_cases").report()
        assert_label_map_of(target, source)
    else:
        event("refused")
        with pytest.raises(InputError, match=f"1 of 1 cases refused:\n  {source} "):
            parser.get_parsed_content("bad_cases").report()
    assert names_in(folder / "eval") in ([], ["scan.nii.gz"])  # no half-written file


def assert_label_map_of(target: Path, source: Path) -> None:
    image, made = nib.load(source), nib.load(target)
    assert made.shape == image.shape[:3]
    np.testing.assert_allclose(made.affine, image.affine, rtol=1e-4, atol=1e-3)
    assert made.get_data_dtype() == np.uint8
    assert np.asarray(made.dataobj).max() <= 3
