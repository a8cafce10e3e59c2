"""Install weights as the model of a bundle: ``python -m kvseg_monai.deploy``."""

from kvseg_monai.bundle.deploy import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
