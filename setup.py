"""What pyproject.toml cannot say: the repository's bundles go into the wheel, as ``kvseg_monai/shipped``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# Sources alone: no weights, no results, no studies.
SHIPPED = (
    *("*_segmentation/configs/*.json", "*_segmentation/configs/logging.conf"),
    *("*_segmentation/docs/*", "*_segmentation/LICENSE"),
    *("examples/*", "templates/*", "bundles.yaml"),
)


class BuildWithBundles(build_py):
    """Build the package with the bundles in it; an editable installation finds them in the checkout."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "kvseg_monai", "shipped")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for source in (path for pattern in SHIPPED for path in (HERE / "bundles").glob(pattern) if path.is_file()):
            copy = target / source.relative_to(HERE / "bundles")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


setup(cmdclass={"build_py": BuildWithBundles})
