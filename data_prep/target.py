"""The folder a preparation writes into: refused when it holds anything else, resumed when it is the same data.

``images``, ``labels`` and ``records`` hold one file per scan; ``datalist.json`` and ``summary.json`` lie beside them.
The summary is written first, unfinished, so that an interrupted run can be told from somebody else's folder.
"""

import shutil
from pathlib import Path

from data_prep.files import read_json, write_json
from kvseg_monai.errors import InputError
from kvseg_monai.files import PARTIAL

FOLDERS = ("images", "labels", "records")
SUMMARY = "summary.json"
DATALIST = "datalist.json"


def check_target(target: Path, *, tool: str, source_fingerprint: str, overwrite: bool) -> None:
    """Raise :class:`InputError` unless ``target`` is new, empty, a run of ``tool`` on the same source, or given up.

    Writes nothing.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"--target {target} is a file; give a folder, new or empty")
    if overwrite or not target.is_dir() or not any(target.iterdir()):
        return
    summary = read_json(target / SUMMARY)
    if not _is_ours(summary):
        raise InputError(
            f"--target {target} holds files that are not from this preparation; give a new or empty folder, "
            "or add --overwrite to write there all the same (other files stay)"
        )
    if summary["tool"] != tool or summary["source_fingerprint"] != source_fingerprint:
        raise InputError(
            f"--target {target} already holds another data set; give a new or empty folder, "
            "or add --overwrite to replace it"
        )


def open_target(target: Path, *, tool: str, source_fingerprint: str, overwrite: bool) -> None:
    """Claim ``target`` for this run, after :func:`check_target`.

    With ``overwrite`` an earlier preparation in it is removed. Files of others are never removed.
    """
    if overwrite and _is_ours(read_json(target / SUMMARY)):
        (target / DATALIST).unlink(missing_ok=True)
        for folder in FOLDERS:
            shutil.rmtree(target / folder, ignore_errors=True)
    try:
        for folder in FOLDERS:
            (target / folder).mkdir(parents=True, exist_ok=True)
            for rest in (target / folder).glob(f"{PARTIAL}*"):  # left by a run that was killed
                rest.unlink(missing_ok=True)
        write_json(target / SUMMARY, {"tool": tool, "source_fingerprint": source_fingerprint, "complete": False})
    except OSError as error:
        raise InputError(
            f"--target {target} cannot be written ({error.strerror}); give a folder you may write to"
        ) from error


def _is_ours(summary: object) -> bool:
    return isinstance(summary, dict) and {"tool", "source_fingerprint"} <= summary.keys()
