"""The server's folder: ``app``, which is MONAI Label's ``monaibundle`` and our additions, and the bundles in it."""

import copy
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from kvseg_monai.bundle.contents import packed_files, read_json
from kvseg_monai.bundle.find import EVALUATE, INFERENCE, SOURCES, TRAIN, find_bundle
from kvseg_monai.bundle.overrides import apply_overrides
from kvseg_monai.errors import InputError

logger = logging.getLogger(__name__)

MAIN = '''"""MONAI Label's app monaibundle with what kvseg_monai adds; the class is found by its last base."""

import monaibundle
from kvseg_monai.label.app import Additions
from monailabel.interfaces.app import MONAILabelApp


class App(Additions, monaibundle.MyApp, MONAILabelApp):
    """The server's app."""
'''


def make_app(folder: Path) -> Path:
    """Return the folder of the app; MONAI Label brings it along, so nothing is downloaded.

    Raises:
        InputError: something else is in its place.
    """
    app = folder / "app"
    if os.path.lexists(app):
        main = app / "main.py"
        if not main.is_file() or "kvseg_monai.label" not in main.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{app} is there and is no server's app; move it away, or give another --target")
        return app
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        fetch = ["monailabel.main", "apps", "--download", "--name", "monaibundle", "--output", temporary]
        subprocess.run([sys.executable, "-m", *fetch], check=True, stdout=subprocess.DEVNULL)
        fetched = Path(temporary, "monaibundle")
        (fetched / "main.py").rename(fetched / "monaibundle.py")
        (fetched / "main.py").write_text(MAIN, encoding="utf-8")
        fetched.rename(app)
    return app


def install_bundle(
    app: Path,
    bundle: str | Path,
    *,
    weights: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    dataset_dir: str | Path | None = None,
) -> str:
    """Install a bundle in the app, where it is not there yet, and return its name in the server.

    What is there keeps its weights, which may have been trained in the server: :mod:`kvseg_monai.bundle.deploy`
    installs others.

    Args:
        app: folder of the app.
        bundle: a bundle's folder, or its name in ``bundles/``.
        weights: a state dict; not used where the bundle is in the app already.
        overrides: those that the weights were trained with; they become the defaults of the server's copy.
        dataset_dir: folder of the training data, whose ``datalist.json`` names the classes; None keeps the bundle's.

    Raises:
        InputError: for a missing bundle, missing weights or those of another network, or other overrides than those
            of the bundle that is in the app already; or something else in its place.
    """
    source = find_bundle(bundle)
    folder = app / "model" / source.name
    if os.path.lexists(folder):
        missing = [path for path in SOURCES if not (folder / path).is_file()]
        if missing:
            raise InputError(f"{folder} is there and is no bundle, it lacks {missing[0]}; move it away")
        _refuse_other_options(folder, overrides or {})
        logger.warning("%s is there already and keeps its weights; kvseg_monai.bundle.deploy installs others", folder)
        return source.name
    if weights is None:
        raise InputError(
            f"there are no weights for {source.name}; give --weights FILE, the models/model.pt of a training, and the "
            "options of that training"
        )
    files = packed_files(source, weights=weights, overrides=overrides or {}, dataset_dir=dataset_dir)
    del files["models/model.pt.sha256"]  # here the weights may change
    _write(folder, files)
    return source.name


def _refuse_other_options(folder: Path, overrides: Mapping[str, Any]) -> None:
    configs = [ConfigParser(read_json(folder / path)) for path in (TRAIN, EVALUATE, INFERENCE)]
    before = [copy.deepcopy(config.config) for config in configs]
    apply_overrides(overrides, configs)
    if before != [config.config for config in configs]:
        raise InputError(
            f"{folder} is there already, with other options ({', '.join(overrides)}); leave them out, or give another "
            "--target for a server of its own"
        )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder's files; it appears under its name when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(content)
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
