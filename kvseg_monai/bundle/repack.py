"""The command that packs the weights of a bundle of another version into the bundle that this version has."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvseg_monai.bundle.contents import read_json
from kvseg_monai.bundle.find import EVALUATE, INFERENCE, METADATA, TRAIN
from kvseg_monai.utils.flags import PLACES
from kvseg_monai.utils.old_names import BEFORE, OPTIONS
from kvseg_monai.utils.settings import default_of


def command_to_repack(folder: Path) -> str:
    """Return a line for the shell; DIR and DATA in it are for the user to choose.

    Args:
        folder: the bundle of another version, with its weights; the one of this version has its name in ``bundles/``.
    """
    today = Path("bundles", folder.name)
    line = ["python", "-m", "kvseg_monai.pack", str(today), "--weights", str(folder / "models" / "model.pt")]
    line += ["--target", "DIR"]
    if today.is_dir() and today.resolve() != folder.resolve():
        for name, value in dict(_changed(folder, today)).items():
            line += [f"--{name}", str(value).replace(" ", "")]
        if _classes(folder) != _classes(today):
            line += ["--dataset_dir", "DATA"]  # whose datalist.json names the classes
    return shlex.join(line)


def _changed(folder: Path, today: Path) -> Iterator[tuple[str, Any]]:
    """Yield the options that have another value than in today's bundle, under today's names."""
    for path in (TRAIN, EVALUATE, INFERENCE):
        old, new = (_options(read_json(at / path)) for at in (folder, today))
        old = {**{name: value for name, value in BEFORE.items() if name in new}, **old}
        for name, value in ((OPTIONS.get(name, name), value) for name, value in old.items()):
            known = name in new or name.startswith("network_def#")
            if known and name not in PLACES and _is_plain(value) and value != new.get(name):
                yield name, value


def _options(config: dict[str, Any]) -> dict[str, Any]:
    arguments = {f"network_def#{name}": value for name, value in config["network_def"].items() if name != "_target_"}
    return {name: default_of(value) for name, value in {**config, **arguments}.items()}


def _is_plain(value: Any) -> bool:
    """Say whether a value is one that is typed: a number, a word, numbers in brackets."""
    if isinstance(value, list):
        return all(isinstance(item, int | float) for item in value)
    return isinstance(value, bool | int | float) or (isinstance(value, str) and not set("$@%") & set(value))


def _classes(folder: Path) -> dict[str, str]:
    return read_json(folder / METADATA)["network_data_format"]["outputs"]["pred"]["channel_def"]
