"""Record of a cross-validation, what it is and how far it is: ``folds.json`` beside the weights of its folds."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvseg_monai.errors import InputError
from kvseg_monai.handlers.checkpoints import LAST
from kvseg_monai.utils.files import write_text
from kvseg_monai.utils.model_files import BEST
from kvseg_monai.utils.run_options import read_mapping

STATE = "folds.json"


@dataclass
class Job:
    """A cross-validation: bundle, overlays and options as they were typed, and what they come to."""

    bundle: str
    overlays: Sequence[str]
    options: Sequence[str]
    folds: int
    ckpt_dir: Path
    output_dir: Path
    identity: Mapping[str, Any]
    longest: Mapping[str, Any]  # steps and epochs of a training
    done: dict[str, list[int]] = field(default_factory=lambda: {"trained": [], "scored": []})

    def weights(self, fold: int) -> Path:
        """Return the folder of a fold's weights."""
        return self.ckpt_dir / f"fold_{fold}"

    def output(self, fold: int) -> Path:
        """Return the folder of a fold's curves and scores."""
        return self.output_dir / f"fold_{fold}"

    def refuse_other_training(self) -> None:
        """Compare with what was begun in the folder, and take over what is done of it.

        Raises:
            InputError: it was begun with other options or data, or there are weights of no cross-validation.
        """
        path = self.ckpt_dir / STATE
        begun = [self.weights(k) / name for k in range(self.folds) for name in (BEST, LAST)]
        begun = [file for file in begun if os.path.lexists(file)]
        if begun and not path.is_file():
            raise InputError(
                f"{begun[0]} is of another training, which may have seen what this fold holds out; move it away, or "
                "give another --ckpt_dir"
            )
        if not begun:  # also where the first training was refused, and its remedy is another option
            return
        found = read_mapping(path)
        changed = [name for name in self.identity if found.get(name) != self.identity[name]]
        if changed:
            raise InputError(
                f"{path} was begun with other {' and '.join(changed)}: {_differences(found, self.identity, changed)}; "
                "give the same again, or another --ckpt_dir"
            )
        self.done = {name: list(found.get(name, [])) for name in self.done}

    def enter(self, stage: str, fold: int) -> None:
        """Enter that a fold is trained or scored."""
        if fold not in self.done[stage]:
            self.done[stage].append(fold)
        self.save()

    def save(self) -> None:
        """Write what is done."""
        write_text(self.ckpt_dir / STATE, json.dumps({**self.identity, **self.done}, indent=1) + "\n")


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], names: Sequence[str]) -> str:
    """Say what is otherwise than it was, option by option."""
    parts = []
    for name in names:
        before, now = found.get(name), wanted[name]
        if isinstance(before, dict) and isinstance(now, dict):
            keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            parts += [f"{key} was {before.get(key, 'not given')} and is {now.get(key, 'not given')}" for key in keys]
        else:
            parts.append("they or their classes changed" if name == "patients" else f"{name} was {before} and is {now}")
    return ", ".join(parts)
