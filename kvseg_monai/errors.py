"""How a mistake in the user's input is told: one sentence on the terminal, a non-zero exit, no traceback."""

import os
import sys
from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """Wrong input. The message names the file, what was found, what is allowed, and the remedy."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command-line ``main`` and leave the process with its exit code.

    An :class:`InputError` becomes one sentence on stderr and exit code 2; Ctrl-C becomes exit code 130.
    Any other exception is a defect of ours and keeps its traceback.
    """
    try:
        sys.exit(main() or 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def show_input_errors_as_sentences() -> None:
    """Make an uncaught :class:`InputError` print as one sentence, also under ``python -m monai.bundle run``.

    Installed by the bundles' ``initialize`` section; the exit code is 2. Other exceptions go to the hook that was
    there before.
    """
    previous = sys.excepthook
    if getattr(previous, "_kvseg_monai", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        mistake = find_input_error(error)
        if mistake is None:
            previous(kind, error, trace)
        else:
            print(f"error: {mistake}", file=sys.stderr, flush=True)
            if not hasattr(sys, "ps1"):  # an ordinary exit aborts where MONAI's loading threads are still busy
                os._exit(2)

    hook._kvseg_monai = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def find_input_error(error: BaseException | None) -> InputError | None:
    """Look for one among the exceptions that MONAI's transforms and configuration parser wrap around an error."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
