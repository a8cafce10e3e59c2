"""Names of NIfTI files, and what a path that is no such file is; no torch needed."""

import os

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".NII.GZ", ".NII")  # nibabel fails where capitals are mixed


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
