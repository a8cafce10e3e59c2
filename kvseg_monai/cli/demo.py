"""``kvseg demo``: the whole path on a phantom, each step by a plain line that is printed."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvseg_monai.bundle.find import find_bundle
from kvseg_monai.cli import plain
from kvseg_monai.errors import InputError
from kvseg_monai.utils.program import program

BUNDLE = "setr_kv"
FULL = {"scans": 24, "slices": 16, "max_epochs": 280, "val_interval": 28}
QUICK = {"scans": 5, "slices": 5, "max_epochs": 2, "val_interval": 1}

# Small enough for a laptop: 3 mm pixels on a canvas of 128 x 96.
SMALL = "--network_def#size tiny --network_def#patch_size 8 --image_size [128,96] --spacing [3.0,3.0]"
COMMON = "--dataset_dir {target}/data --bundle_root {bundle} --ckpt_dir {target}/models " + SMALL


@dataclass(frozen=True)
class Step:
    """A plain line, ``python -m MODULE ...``, and what shows that it is done.

    Args:
        line: module and arguments, with ``{target}``, ``{bundle}`` and the names of :data:`FULL`.
        made: path in the target that is there afterwards.
        stamp: no output but an empty file, set when the line has ended: an interrupted training leaves weights too.
    """

    line: str
    made: str
    stamp: bool = False

    def words(self, **values: object) -> list[str]:
        """Return the line's words; a value may have spaces."""
        return [word.format_map(values) for word in self.line.split()]


STEPS = (
    Step("data_prep.phantom --target {target}/raw --scans {scans} --slices {slices}", "raw"),
    Step("data_prep.uw_madison --source {target}/raw --target {target}/data", "data/datalist.json"),
    Step(
        f"monai.bundle run --config_file {{bundle}}/configs/train.json {COMMON} --output_dir {{target}}/training "
        "--max_epochs {max_epochs} --val_interval {val_interval} --volumes_per_batch 8 --resume true",
        ".trained",
        stamp=True,
    ),
    Step(
        f"monai.bundle run --config_file {{bundle}}/configs/evaluate.json {COMMON} --output_dir {{target}}/evaluation",
        "evaluation/metrics.json",
    ),
    Step(
        f"monai.bundle run --config_file {{bundle}}/configs/inference.json {COMMON} --output_dir {{target}}/label_maps",
        ".segmented",
        stamp=True,
    ),
    Step(
        "kvseg_monai.report --evaluation {target}/evaluation --training {target}/training "
        f"--target {{target}}/report.html --bundle {{bundle}} --weights {{target}}/models/model.pt {SMALL}",
        "report.html",
    ),
)


def run_steps(steps: Sequence[Step], target: Path, values: Mapping[str, object]) -> int:
    """Run each step that is not done yet; return the exit code of the first that fails, or 0."""
    for step in steps:
        if (target / step.made).exists():
            continue
        module, *words = step.words(target=target, **values)
        print(plain.show(module, words), flush=True)
        code = plain.run_and_wait(module, words)
        if code:
            return code
        if step.stamp:
            (target / step.made).touch()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and say what to open."""
    parser = argparse.ArgumentParser(
        prog=program("kvseg_monai demo"),
        description="Show the whole path on a phantom, computed images of no patient: prepare them, train a tiny "
        "network, evaluate it, segment, report. What is done already is not done again.",
    )
    parser.add_argument("--target", type=Path, metavar="DIR", help="folder of all that is made (demo or demo_quick)")
    parser.add_argument("--quick", action="store_true", help="two epochs on a few slices: a test, no result")
    options = parser.parse_args(arguments)
    target = options.target or Path("demo_quick" if options.quick else "demo")
    _claim(target, quick=options.quick)
    scale = QUICK if options.quick else FULL
    code = run_steps(STEPS, target, {"bundle": plain.short(find_bundle(BUNDLE)), **scale})
    if code == 0:
        print(_what_to_open(target))
    return code


def _claim(target: Path, *, quick: bool) -> None:
    """Mark a new folder of the quick demo; refuse one of the other demo, whose weights would pass for this one's."""
    mark = target / ".quick"
    if quick and not (target / "raw").exists():
        target.mkdir(parents=True, exist_ok=True)
        mark.touch()
    if mark.exists() != quick:
        other = "with" if mark.exists() else "without"
        raise InputError(f"{target} holds a demo {other} --quick, which is another one; give another --target")


def _what_to_open(target: Path) -> str:
    return f"""
Open {target}/report.html: scores, learning curve, pictures, and what the attention looks at.
Label maps of the held-out scan: {target}/label_maps. Weights: {target}/models/model.pt.
Next, with your own data (`kvseg prepare` lists the kinds):
  kvseg prepare uw_madison --source RAW --target DATA
  kvseg train {BUNDLE} --dataset_dir DATA"""
