from .deploy import deploy as deploy
from .find import find_bundle as find_bundle
from .overrides import apply_overrides as apply_overrides
from .overrides import parse_with_overrides as parse_with_overrides
from .pack import pack as pack
from .unknown_options import refuse_unknown_options as refuse_unknown_options

__all__ = [
    "apply_overrides",
    "deploy",
    "find_bundle",
    "pack",
    "parse_with_overrides",
    "refuse_unknown_options",
]
