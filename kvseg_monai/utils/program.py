"""Name of a command in its usage line: as it was started."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_called: ContextVar[str | None] = ContextVar("called", default=None)


def program(module: str) -> str:
    """Return ``python -m MODULE``, or within :func:`called` the name that the command goes by there."""
    return _called.get() or f"python -m {module}"


@contextmanager
def called(name: str) -> Iterator[None]:
    """Give the commands that run within the block a name, such as ``kvseg pack``."""
    token = _called.set(name)
    try:
        yield
    finally:
        _called.reset(token)
