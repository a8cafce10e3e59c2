"""Start MONAI Label on this machine alone, with the settings that MR and a machine without internet need."""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kvseg_monai.errors import InputError

HOST = "127.0.0.1"


def refuse_environment() -> None:
    """Raise where MONAI Label cannot start.

    Raises:
        InputError: when it is not installed, or torchvision is of another build than torch.
    """
    if find_spec("monailabel") is None:
        raise InputError(
            "MONAI Label is not installed here; it has an environment of its own, which `make label` makes "
            "(bundles/README.md has the lines)"
        )
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"torchvision, which MONAI Label imports, does not fit the installed torch ({str(error)[:100]}); install "
            "both from one index, such as https://download.pytorch.org/whl/cpu; where there is none, "
            "PYTHONPATH=tests/stand_in does for a trial"
        ) from error


def refuse_port(port: int) -> None:
    """Raise where nothing can listen on ``port``.

    Raises:
        InputError: saying that it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port} cannot be used ({getattr(error, 'strerror', None) or error}); stop the server that runs "
                "there, or give another --port"
            ) from error


def is_dicomweb(studies: str) -> bool:
    """Return whether ``studies`` is the address of a DICOMweb server, and no folder."""
    return studies.startswith(("http://", "https://"))


def refuse_studies(studies: str) -> None:
    """Raise where there is neither a folder nor a DICOMweb server.

    Raises:
        InputError: saying so; MONAI Label would make the folder, or fail at the first request.
    """
    if not is_dicomweb(studies):
        if not Path(studies).is_dir():
            raise InputError(
                f"--studies {studies} is no folder; give a folder with NIfTI volumes, or the address of a DICOMweb "
                "server"
            )
        return
    try:
        urllib.request.urlopen(f"{studies.rstrip('/')}/studies?limit=1", timeout=10).close()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"--studies {studies} does not answer as a DICOMweb server ({reason}); start it, or correct the address "
            "(Orthanc's is http://127.0.0.1:8042/dicom-web)"
        ) from error


def command(app: Path, studies: str, *, models: Sequence[str], port: int) -> list[str]:
    """Return the command line of the server."""
    options = {
        "models": ",".join(models),
        "epistemic_model": ",".join(models),
        "zoo_source": "local",  # else it asks the internet for a list of bundles, and ends without an answer
        "sam2": "false",  # else it downloads weights
    }
    configuration = [part for name, value in options.items() for part in ("--conf", name, value)]
    start = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", studies]
    start += ["--uvicorn_app", "kvseg_monai.label.web:app"]
    return [*start, "--host", HOST, "--port", str(port), *configuration]


def environment(folder: Path, studies: str) -> Mapping[str, str]:
    """Return the environment of the server: this one, and MONAI Label's settings."""
    settings = {
        "MONAI_LABEL_DATASTORE_FILE_EXT": '["*.nii.gz", "*.nii"]',  # what the bundles read
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),  # dcmqi's programs
    }
    if is_dicomweb(studies):
        settings["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] = '{"Modality": "MR"}'  # the default is CT
        settings["MONAI_LABEL_DICOMWEB_CACHE_PATH"] = str(folder / "dicomweb")
    return {**os.environ, **settings}


def what_to_open(app: Path, studies: str, *, models: Sequence[str], port: int) -> str:
    """Return what a person does next."""
    address = f"http://{HOST}:{port}"
    lines = [
        f"MONAI Label starts at {address} with {', '.join(models)}; it is up when it says 'Uvicorn running'.",
        f"  3D Slicer: module MONAI Label, MONAI Label server {address}, then Next Sample and Run",
        f"  OHIF: {address}/ohif/" if is_dicomweb(studies) else "  OHIF: only with a DICOMweb server as --studies",
        f"  REST: {address}/docs",
        f"  studies: {studies}",
        *(f"  weights: {app / 'model' / name / 'models'}" for name in models),
        "Research only. Not a medical device. Stop it with Ctrl-C.",
    ]
    return "\n".join(lines)
