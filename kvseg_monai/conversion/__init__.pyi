from .convert import converted as converted
from .convert import to_kv as to_kv

__all__ = [
    "converted",
    "to_kv",
]
