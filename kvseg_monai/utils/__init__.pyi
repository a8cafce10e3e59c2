from .command_line import check_command_line as check_command_line
from .cpu import tune_cpu as tune_cpu
from .distributed import join_processes as join_processes
from .distributed import process_device as process_device
from .distributed import with_shared_norms as with_shared_norms
from .files import refuse_foreign as refuse_foreign
from .flags import as_count as as_count
from .flags import as_flag as as_flag
from .gpu import tune_gpu as tune_gpu
from .gpu import use_device as use_device
from .overlap import refuse_overlap as refuse_overlap
from .run_record import RunRecord as RunRecord
from .run_record import describe_configuration as describe_configuration
from .settings import setting as setting
from .settings import trained_settings as trained_settings
from .weights import load_weights as load_weights
from .weights import save_whole as save_whole

__all__ = [
    "RunRecord",
    "as_count",
    "as_flag",
    "check_command_line",
    "describe_configuration",
    "join_processes",
    "load_weights",
    "process_device",
    "refuse_foreign",
    "refuse_overlap",
    "save_whole",
    "setting",
    "trained_settings",
    "tune_cpu",
    "tune_gpu",
    "use_device",
    "with_shared_norms",
]
