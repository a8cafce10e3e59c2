"""The one place that knows where bundles are: the folder that is named, ``bundles/`` here, and those of the package."""

from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.errors import InputError
from kvseg_monai.utils.nearest import did_you_mean

METADATA, CARD = "configs/metadata.json", "docs/README.md"
TRAIN, EVALUATE, INFERENCE = (f"configs/{name}.json" for name in ("train", "evaluate", "inference"))
AS_THEY_ARE = ("configs/multi_gpu_train.json", "configs/logging.conf", "docs/data_license.txt", "LICENSE")
SOURCES = (METADATA, TRAIN, EVALUATE, INFERENCE, CARD, *AS_THEY_ARE)  # what a bundle is; weights and results come later

SUFFIX = "_segmentation"
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder() -> Path:
    """Return where the package's own bundles, examples and templates are: in a wheel, or in the checkout beside it."""
    inside = _PACKAGE / "shipped"
    return inside if inside.is_dir() else _PACKAGE.parent / "bundles"


def shipped_bundles() -> dict[str, Path]:
    """Return name -> folder of the bundles that come with the package."""
    return {path.parents[1].name: path.parents[1] for path in sorted(shipped_folder().glob(f"*/{METADATA}"))}


def find_bundle(bundle: str | Path, *, needs: Sequence[str] = SOURCES, among: Path | None = None) -> Path:
    """Return the folder of a bundle that is named by its folder or by its name: whole, or short as ``setr_kv``.

    A name is looked up in ``bundles/`` of the working directory, then among the bundles that come with the package.

    Args:
        bundle: folder or name.
        needs: files that must be in it.
        among: a folder of bundles that is searched instead of all others, as that of a study.

    Raises:
        InputError: when there is none, or it is not whole.
    """
    names = (str(bundle), f"{bundle}{SUFFIX}")
    places = (Path("bundles"), shipped_folder()) if among is None else (among,)
    folders = [place / name for place in places for name in names]
    folders = [Path(bundle), *folders] if among is None else folders
    there = [folder for folder in folders if folder.is_dir()]
    if not there:
        near = did_you_mean(
            names[0].removesuffix(SUFFIX), [name.removesuffix(SUFFIX) for name in _known_names()], most=2
        )
        raise InputError(
            f"there is no bundle {bundle}; give its folder, or the name of one in bundles/ or of those that "
            f"`kvseg bundles` lists{'; ' if near else ''}{near}"
        )
    missing = {folder: [path for path in needs if not (folder / path).is_file()] for folder in there}
    whole = [folder for folder in there if not missing[folder]]
    if not whole:
        raise InputError(
            f"{there[0]} is no whole bundle, it lacks {missing[there[0]][0]}; give a folder as those in bundles/"
        )
    return whole[0].resolve()


def is_shipped(folder: Path) -> bool:
    """Return whether a bundle is the package's own and not taken from ``bundles/`` here: nothing is written into it."""
    return folder.parent == shipped_folder().resolve() and folder.parent != Path("bundles").resolve()


def find_overlay(overlay: str, bundle: Path) -> Path:
    """Return the configuration of a path, or of a name: of one in the bundle, or of an example of the package.

    Raises:
        InputError: when there is none.
    """
    name = Path(overlay).name
    file = name if Path(name).suffix else f"{name}.json"
    examples = shipped_folder() / "examples"
    places = (Path(overlay), bundle / "configs" / file, Path("bundles", "examples", file), examples / file)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        known = [path.stem for folder in (bundle / "configs", examples) for path in sorted(folder.glob("*.json"))]
        near = did_you_mean(Path(file).stem, known)
        raise InputError(
            f"there is no configuration {overlay}; give its path, or the name of an example ("
            f"{', '.join(path.stem for path in sorted(examples.glob('*.json')))}){'; ' if near else ''}{near}"
        )
    return found


def _known_names() -> list[str]:
    here = [path.parents[1].name for path in Path("bundles").glob(f"*/{METADATA}")]
    return list(dict.fromkeys([*here, *shipped_bundles()]))
