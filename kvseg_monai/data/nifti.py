"""NIfTI files: their names, opened and read with care, written in one step. No torch needed.

Damage anywhere in a file is reported, never read as other voxels. Voxels are (X, Y, Z), an affine is (4, 4), from voxel
index to RAS mm. :class:`kvseg_monai.data.NiftiReader` and :class:`kvseg_monai.data.AtomicNibabelWriter` are MONAI's
classes on top of this.
"""

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from kvseg_monai.data.nifti_geometry import scanner_header
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".NII.GZ", ".NII")  # nibabel fails where capitals are mixed
MAX_GZIP_RATIO = 1032  # of deflate; https://zlib.net/zlib_tech.html
# On a 16-bit volume level 1 takes a fraction of the time of nibabel's default for a few per cent more bytes.
GZIP_LEVEL = 1
_BLOCK = 1 << 20  # bytes


def without_suffix(name: str) -> str:
    """Return the name of a NIfTI file without its ending, and any other name as it is."""
    suffix = next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def why_no_file(path: str | os.PathLike[str]) -> str:
    """Say of a path that is no regular file what is wrong, as the rest of a sentence."""
    if os.path.islink(path) and not os.path.exists(path):
        return (
            f"is a link to {os.readlink(path)}, which is not there; fetch that file (of git-annex: `git annex get`), "
            "or take the link away"
        )
    return "is no regular file; give one" if os.path.exists(path) else "is missing; restore it or correct the path"


@contextmanager
def open_nifti(path: str | os.PathLike[str]) -> Iterator[SpatialImage]:
    """Give the image of a NIfTI file; its voxels are to be read within the block, and used after it.

    A gzip file ends with a checksum of what it holds, which nibabel never reaches. When the block is done, the rest of
    the file is read, so that the checksum is compared: in one pass, and with no more memory than the voxels take.

    Raises:
        InputError: at the start, when there is no such file, or its header says that it holds no voxels that can be
            used; at the end, when it is cut off, damaged, or goes on with something else.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(f"{path} {why_no_file(path)}")
    try:
        with ExitStack() as stack:
            image = nib.load(path)
            if problem := _header_problem(image, path):
                raise InputError(f"{path} {problem}")
            if path.lower().endswith(".gz"):
                stream = stack.enter_context(gzip.open(path))
                holder = nib.FileHolder(filename=path, fileobj=stream)
                image = type(image).from_file_map({"header": holder, "image": holder})
                yield image
                while stream.read(_BLOCK):
                    pass
            else:
                yield image
    except InputError:
        raise
    except Exception as error:  # nibabel and gzip have a dozen kinds for a damaged file
        reason = " ".join(str(error).replace(path, "it").split())[:200] or type(error).__name__
        raise InputError(f"{path} is no readable NIfTI file ({reason}); copy it again") from error


def read_nifti(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels, scaled as the file says, and the affine. Axes of length 1 behind the third are dropped.

    Raises:
        InputError: see :func:`open_nifti`.
    """
    with open_nifti(path) as image:
        voxels = np.asanyarray(image.dataobj)
        affine = image.affine
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels, affine


def read_volume(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels (X, Y, Z) of one volume, in a type that can be stored again, and its affine.

    A single plane gets a third axis.

    Raises:
        InputError: when it cannot be read, is damaged, or is a series of volumes or in colour.
    """
    voxels, affine = read_nifti(path)
    voxels = voxels[..., None] if voxels.ndim == 2 else voxels
    if voxels.ndim != 3 or voxels.dtype.kind not in "iuf" or not voxels.size:
        raise InputError(
            f"{path} has the shape {voxels.shape} and the type {voxels.dtype}; it must be one volume of numbers: "
            "split a series into volumes, turn colour into gray"
        )
    return _storable(voxels), affine


def write_volume(path: str | os.PathLike[str], voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write voxels (X, Y, Z), in the type that they have, to ``path`` (``.nii.gz``) in one step.

    The folder is made if needed. Qform and sform are the affine, in scanner coordinates.
    """
    header = scanner_header(voxels.shape, affine)
    header.set_data_dtype(voxels.dtype)
    image = nib.Nifti1Image(voxels, None, header)
    with atomic_write(path) as temporary:  # a fixed time stamp makes equal volumes equal files
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=GZIP_LEVEL, mtime=0))


def _header_problem(image: SpatialImage, path: str) -> str | None:
    """Return why the file at ``path`` holds no voxels that can be used, as the rest of a sentence; else None."""
    kind = image.get_data_dtype()
    if kind.fields:
        return (
            f"is a colour image ({', '.join(kind.fields)}); the networks read one contrast: give the MR volume itself"
        )
    if kind.kind not in "buif":
        return f"holds voxels of the type {kind.name}; they must be real numbers: give the magnitude"
    most = os.path.getsize(path) * (MAX_GZIP_RATIO if path.lower().endswith(".gz") else 1)
    if isinstance(image, nib.Nifti1Image) and math.prod(image.shape) * kind.itemsize > most:
        shape = " x ".join(str(side) for side in image.shape)
        return f"is {shape} voxels by its header, more than the file can hold; copy it again"
    return None


def _storable(voxels: np.ndarray) -> np.ndarray:
    """Return the same values in a type that NIfTI readers expect: not 64 bits where 32 hold them, native byte order."""
    if voxels.dtype.kind == "f" or voxels.dtype.itemsize == 8:
        with np.errstate(over="ignore", invalid="ignore"):  # the input checks refuse what becomes infinite
            small = voxels.astype(np.float32 if voxels.dtype.kind == "f" else np.int32)
        return small if voxels.dtype.kind == "f" or (small == voxels).all() else voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
