"""Find a bundle by its folder or name."""

from pathlib import Path

from kvseg_monai.bundle.contents import SOURCES
from kvseg_monai.errors import InputError


def find_bundle(bundle: str | Path) -> Path:
    """Return the folder of a bundle that is named by its folder, or by its name in ``bundles/``: whole, or ``setr_kv``.

    Raises:
        InputError: when there is none, or it is not whole.
    """
    places = (Path(bundle), Path("bundles", bundle), Path("bundles", f"{bundle}_segmentation"))
    folders = [folder for folder in places if folder.is_dir()]
    if not folders:
        raise InputError(f"there is no bundle {bundle}; give its folder, or the name of one in bundles/")
    missing = [path for path in SOURCES if not (folders[0] / path).is_file()]
    if missing:
        raise InputError(f"{folders[0]} is no whole bundle, it lacks {missing[0]}; give a folder as those in bundles/")
    return folders[0].resolve()
