from .plan import Study as Study
from .plan import read_study as read_study
from .plan import select as select
from .report import write_report as write_report
from .run import choose_device as choose_device
from .run import run_study as run_study

__all__ = ["Study", "choose_device", "read_study", "run_study", "select", "write_report"]
