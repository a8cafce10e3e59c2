from .command_line import check_command_line as check_command_line
from .files import refuse_foreign as refuse_foreign
from .flags import as_flag as as_flag
from .overlap import refuse_overlap as refuse_overlap
from .run_record import RunRecord as RunRecord
from .weights import load_weights as load_weights
from .weights import save_whole as save_whole

__all__ = [
    "RunRecord",
    "as_flag",
    "check_command_line",
    "load_weights",
    "refuse_foreign",
    "refuse_overlap",
    "save_whole",
]
