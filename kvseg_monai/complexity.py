"""Count and time what each network costs: ``python -m kvseg_monai.complexity``."""

from kvseg_monai.cost.complexity import main
from kvseg_monai.errors import run_command

if __name__ == "__main__":
    run_command(main)
