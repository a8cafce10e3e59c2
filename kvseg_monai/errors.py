"""Mistakes in the user's input, reported as one sentence on the terminal, a non-zero exit code and no traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "InputError",
    "OptionError",
    "find_input_error",
    "run_command",
    "runs_a_command",
    "sentence_of",
    "show_input_errors_as_sentences",
]

_RIGHTS = "get the right to use it, or name another place"
_SPACE = "free some space, or name another place"
_PLACE = "a file and a folder are mixed up on the way to it: correct the path"
_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _SPACE),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _PLACE),
}


class InputError(ValueError):
    """Wrong input. The message names the file, what was found, what is allowed, and the remedy."""


class OptionError(InputError):
    """Wrong option, which shows at the first case: no fault of the case, so that it ends the work."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command-line ``main`` and leave the process with its exit code.

    An :class:`InputError`, or a disk that is full or not to be used, becomes one sentence on stderr and exit code 2;
    Ctrl-C becomes exit code 130, and a SIGTERM 143: either way what was begun is cleaned up and started processes end.
    Any other exception is a defect of ours and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main() or 0)
    except (InputError, OSError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def show_input_errors_as_sentences() -> None:
    """Report what :func:`run_command` reports in a sentence so under ``python -m monai.bundle run`` too.

    The bundles' ``initialize`` section calls it; the exit code is 2. Other exceptions go to the hook that was there
    before. In a process whose main program is another, as a notebook, MONAI Label or ``create_workflow``, it does
    nothing: there an :class:`InputError` is an exception like any other.
    """
    previous = sys.excepthook
    if not runs_a_command() or getattr(previous, "_kvseg_monai", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            previous(kind, error, trace)
        else:
            print(f"error: {sentence}", file=sys.stderr, flush=True)
            if not hasattr(sys, "ps1"):  # an ordinary exit aborts where MONAI's loading threads are still busy
                os._exit(2)

    hook._kvseg_monai = True  # type: ignore[attr-defined]  # marks the function
    sys.excepthook = hook


def runs_a_command() -> bool:
    """Return whether the main program is ``python -m monai.bundle run`` or ``kvseg``, or torchrun of either."""
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    if module == "monai.bundle.__main__":
        return sys.argv[1:2] == ["run"]
    return module == "kvseg_monai.__main__" or Path(sys.argv[0]).stem == "kvseg"  # the latter is the console script


def sentence_of(error: BaseException) -> str | None:
    """Return the sentence of an :class:`InputError`, or what keeps a file from being used; None for a defect."""
    if mistake := find_input_error(error):
        return str(mistake)
    while error.__cause__ is not None:  # MONAI's transforms wrap
        error = error.__cause__
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return f"{error.filename or 'a file'} cannot be used ({error.strerror}); {_REMEDIES[error.errno]}"
    return None


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the InputError among the exceptions that MONAI's transforms and parser wrap around an error."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
