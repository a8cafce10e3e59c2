"""Start Orthanc, a DICOM server, on this machine alone: ``python -m kvseg_monai.label.orthanc``.

It comes with Debian (packages ``orthanc`` and ``orthanc-dicomweb``). MONAI Label and OHIF read its studies by DICOMweb.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kvseg_monai.errors import InputError, run_command
from kvseg_monai.label.server import refuse_port
from kvseg_monai.utils.files import write_text

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")  # where Debian puts it


def find_orthanc() -> str:
    """Return the program.

    Raises:
        InputError: where it, or its DICOMweb plugin, is not installed.
    """
    program = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if program is None or not PLUGIN.is_file():
        raise InputError(
            f"Orthanc with its plugin {PLUGIN} is not installed; on Debian: apt install orthanc orthanc-dicomweb"
        )
    return program


def configure(folder: Path, *, port: int) -> Path:
    """Write Orthanc's configuration into ``folder``, where its studies are, and return the file.

    Raises:
        InputError: there are files in their place that are not Orthanc's.
    """
    file, studies = folder / "orthanc.json", folder / "studies"
    if os.path.lexists(studies) and not file.is_file() and not (studies.is_dir() and not any(studies.iterdir())):
        raise InputError(f"{studies} is there, but no {file.name} of ours; move it away, or give another --target")
    settings = {
        "Name": "kvseg_monai",
        "StorageDirectory": str(studies),
        "IndexDirectory": str(studies),
        "HttpPort": port,
        "RemoteAccessAllowed": False,  # who is on this machine may read; nobody else
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    return write_text(file, json.dumps(settings, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Configure, say what to open, and become Orthanc."""
    parser = argparse.ArgumentParser(prog="python -m kvseg_monai.label.orthanc", description="Start Orthanc.")
    parser.add_argument("--target", type=Path, default=Path("label/orthanc"), metavar="DIR", help="its studies")
    parser.add_argument("--port", type=int, default=8042, help="8042")
    options = parser.parse_args(arguments)
    program = find_orthanc()
    refuse_port(options.port)
    configuration = configure(options.target.resolve(), port=options.port)
    address = f"http://127.0.0.1:{options.port}"
    print(
        f"Orthanc starts at {address}\n"
        f"  put studies in: {address}/app/explorer.html#upload\n"
        f"  for MONAI Label: python -m kvseg_monai.label --studies {address}/dicom-web\n"
        f"  studies: {options.target}; stop it with Ctrl-C",
        flush=True,
    )
    os.execv(program, [program, str(configuration)])


if __name__ == "__main__":
    run_command(main)
