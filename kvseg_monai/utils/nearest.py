"""Suggestions for a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from kvseg_monai.utils.old_names import RETIRED


def did_you_mean(name: str, known: Iterable[str], *, form: str = "{}", most: int = 1) -> str:
    """Return ``did you mean NAME?``, or ``NAME or NAME?``, of the ``most`` known names most like it; "" of none.

    >>> did_you_mean("max_epoch", ["max_epochs", "seed"], form="--{}")
    'did you mean --max_epochs?'
    """
    names = list(known)
    if RETIRED.get(name) in names:
        return f"did you mean {form.format(RETIRED[name])}?"
    found = get_close_matches(name, names, n=most)
    found = found or [other for other in names if name and other.startswith(name)][:most]
    return f"did you mean {' or '.join(form.format(match) for match in found)}?" if found else ""
