"""The table of the commands of ``kvseg``: what each is for, and where it is implemented."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Command:
    """A command of ``kvseg``.

    Args:
        help: one line.
        module: whose function it calls; imported when it runs, not before.
        function: takes the words after the command's name, and returns the exit code, or None for 0.
    """

    help: str
    module: str
    function: str = "main"

    def load(self) -> Callable[[Sequence[str]], int | None]:
        """Import the module and return the function."""
        return getattr(import_module(self.module), self.function)


GROUPS: Mapping[str, str] = {"prepare": "Turn your images into volumes, label maps and a datalist.json."}

# In the order of a first use; a command of a group has the group's name before its own.
COMMANDS: Mapping[str, Command] = {
    "demo": Command("Show the whole path on a phantom, up to a report.", "kvseg_monai.cli.demo"),
    "phantom": Command("Compute a phantom: MRI-like slices of no patient.", "data_prep.phantom.write"),
    "prepare dicom": Command("From a folder of DICOM series, DICOM SEG as labels.", "data_prep.dicom.source"),
    "prepare nifti": Command("From NIfTI images and masks.", "data_prep.nifti.source"),
    "prepare png_pairs": Command("From PNG slices and masks.", "data_prep.png_pairs.source"),
    "prepare uw_madison": Command("From the raw UW-Madison GI Tract data.", "data_prep.uw_madison.source"),
    "bundles": Command("List the bundles, or copy one somewhere.", "kvseg_monai.cli.bundles"),
    "plan": Command("Choose settings for your data, and say why.", "kvseg_monai.plan.__main__"),
    "train": Command("Train a bundle's network.", "kvseg_monai.cli.train"),
    "evaluate": Command("Score a bundle's weights on held-out cases.", "kvseg_monai.cli.workflows", "evaluate"),
    "infer": Command("Segment volumes with a bundle's weights.", "kvseg_monai.cli.workflows", "infer"),
    "report": Command("Make one HTML page of an evaluation.", "kvseg_monai.report.__main__"),
    "study": Command("Train and compare matched arms.", "kvseg_monai.study.__main__"),
    "convert": Command("Turn trained weights into their Key-Value form.", "kvseg_monai.conversion.convert"),
    "pack": Command("Make a zip of a bundle and its weights, to share.", "kvseg_monai.bundle.pack"),
    "deploy": Command("Put weights in the place of a bundle's model.", "kvseg_monai.bundle.deploy"),
    "cost": Command("Count and time what each network costs.", "kvseg_monai.cost.complexity"),
    "benchmark": Command("Time a training step against a bare loop.", "kvseg_monai.cost.training_step"),
    "label": Command("Start MONAI Label with a bundle.", "kvseg_monai.label.__main__"),
}
