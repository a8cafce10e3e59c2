"""Time a bundle's training step against a bare PyTorch loop: ``python -m kvseg_monai.benchmark``."""

from kvseg_monai.cost.training_step import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
