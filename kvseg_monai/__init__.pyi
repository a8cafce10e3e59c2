from . import (
    blocks as blocks,
)
from . import (
    bundle as bundle,
)
from . import (
    conversion as conversion,
)
from . import (
    cost as cost,
)
from . import (
    data as data,
)
from . import (
    dicom as dicom,
)
from . import (
    errors as errors,
)
from . import (
    handlers as handlers,
)
from . import (
    inferers as inferers,
)
from . import (
    label as label,
)
from . import (
    metrics as metrics,
)
from . import (
    nets as nets,
)
from . import (
    plan as plan,
)
from . import (
    report as report,
)
from . import (
    study as study,
)
from . import (
    transforms as transforms,
)
from . import (
    utils as utils,
)
from ._version import __version__ as __version__
from .blocks import Attention as Attention
from .nets import SETR as SETR
from .nets import CvT as CvT
from .nets import TransUNet as TransUNet

__all__ = [
    "SETR",
    "Attention",
    "CvT",
    "TransUNet",
    "__version__",
    "blocks",
    "bundle",
    "conversion",
    "cost",
    "data",
    "dicom",
    "errors",
    "handlers",
    "inferers",
    "label",
    "metrics",
    "nets",
    "plan",
    "report",
    "study",
    "transforms",
    "utils",
]
