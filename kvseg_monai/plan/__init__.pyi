from .choose import choose as choose
from .file import Plan as Plan
from .file import read_plan as read_plan
from .file import write_plan as write_plan
from .measure import measure as measure
from .use import planned_settings as planned_settings
from .use import settings_of_weights as settings_of_weights

__all__ = [
    "Plan",
    "choose",
    "measure",
    "planned_settings",
    "read_plan",
    "settings_of_weights",
    "write_plan",
]
