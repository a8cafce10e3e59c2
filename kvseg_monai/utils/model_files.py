"""Files of a model and the record of its training; an earlier one is kept."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from kvseg_monai.utils.files import atomic_write, dated, set_aside
from kvseg_monai.utils.records import record

logger = logging.getLogger(__name__)

BEST = "model.pt"
RECORD = "training.json"


def record_of(weights: Path) -> Path:
    """Return where it stands how weights came to be: ``training.json`` for ``model.pt``, and so on."""
    return weights.with_name(f"training{weights.stem.removeprefix(Path(BEST).stem)}.json")


def read_record(record: Path) -> dict[str, Any]:
    """Return what an earlier run recorded of itself, nothing where the file is not one that a run writes."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("seconds"), int | float) else {}


def keep_earlier(model: Path) -> None:
    """Copy a model that is about to be replaced, and its record, to names with its date, and say so."""
    if not model.is_file():
        return
    kept = dated(model, companion=record_of)
    for path, copy in ((model, kept), (record_of(model), record_of(kept))):
        if path.is_file():
            with atomic_write(copy) as temporary:
                shutil.copy2(path, temporary)
            if not path.is_symlink():
                record(path.parent, [path.name])  # whoever wrote it: its content is kept, and it may be replaced
    logger.warning("%s is replaced; the earlier one is kept as %s", model, kept.name)


def keep_earlier_run(*paths: Path) -> None:
    """Rename what an earlier run left to names with their date, and say so."""
    for path in paths:
        if os.path.lexists(path):
            logger.warning("an earlier %s was there; it is kept as %s", path.name, set_aside(path).name)
