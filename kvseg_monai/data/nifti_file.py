"""Open NIfTI files so that damage anywhere in a file is an error, never read as other voxels; no torch needed."""

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import nibabel as nib

from kvseg_monai.data.nifti_names import why_no_file
from kvseg_monai.errors import InputError

MAX_GZIP_RATIO = 1032  # of deflate; https://zlib.net/zlib_tech.html
_BLOCK = 1 << 20  # bytes


@contextmanager
def open_nifti(path: str | os.PathLike[str]) -> Iterator[nib.spatialimages.SpatialImage]:
    """Give the image of a NIfTI file; its voxels are to be read within the block, and used after it.

    A gzip file ends with a checksum of what it holds, which nibabel never reaches. When the block is done, the rest of
    the file is read, so that the checksum is compared: in one pass, and with no more memory than the voxels take.

    Raises:
        InputError: at the start, when there is no such file, or by its header it holds no voxels that can be used;
            at the end, when it is cut off, damaged, or goes on with something else.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(f"{path} {why_no_file(path)}")
    try:
        with ExitStack() as stack:
            image = nib.load(path)
            if problem := header_problem(image, path):
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


def header_problem(image: nib.spatialimages.SpatialImage, path: str) -> str | None:
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
