"""Command lines: what a user got wrong is one sentence and exit code 2, not a traceback."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class UsageError(ValueError):
    """What was asked for cannot be done; the message is one sentence for who asked."""


class Parser(argparse.ArgumentParser):
    """Takes flags by their whole names; the description is shown as it is written.

    Raises:
        UsageError: when it parses, in place of leaving the program.
    """

    def __init__(self, *, prog: str, description: str | None):
        """Named as the user calls it."""
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Is told as any other mistake."""
        raise UsageError(message)


def run_command(command: Callable[[], str], *, name: str = "error") -> int:
    """Prints what `command` returns, or on stderr, behind `name`, why it cannot; returns the exit code, 0 or 2."""
    try:
        print(command())
    except (UsageError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0
