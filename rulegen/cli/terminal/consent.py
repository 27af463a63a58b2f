"""Confirmation: nothing is written to a host without `--yes`, or a yes typed on a terminal."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from rulegen.cli.terminal.console import note
from rulegen.errors import RulegenError

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "Apply these changes?"
_CONTROLLING = "/dev/tty"
_LONGEST_ANSWER = 4096
"""Maximum length of a line from a terminal in bytes (N_TTY_BUF_SIZE, tty_ioctl(4))."""


class NoConsentError(RulegenError):
    """There are changes to write, but neither `--yes` nor a terminal for the question."""


def require_consent(*, yes: bool, stdin_is_input: bool = False) -> None:
    """Return if the changes may be written; otherwise end the command with exit code 1.

    The question and the answer use the terminal itself, so redirected standard output and standard error do not matter.
    Piped input and environment variables never count as an answer.

    Args:
        yes: Whether `--yes` was given.
        stdin_is_input: Whether objects were read from standard input (`-f -`): then the controlling terminal is used.

    Raises:
        NoConsentError: There is no terminal.
        click.exceptions.Exit: The answer is not yes.
    """
    if yes:
        return
    with _terminal(stdin_is_input=stdin_is_input) as descriptor:
        try:
            os.write(descriptor, f"{QUESTION} [y/N]: ".encode())
            answer = os.read(descriptor, _LONGEST_ANSWER)
        except OSError as error:  # it was disconnected, or belongs to another session
            raise _no_consent(f"the terminal cannot be read: {error.strerror}") from None
        if not answer.endswith(b"\n"):
            os.write(descriptor, b"\n")
    if answer.strip().lower() not in {b"y", b"yes"}:
        note("Nothing was written.")
        raise click.exceptions.Exit(1)


def has_terminal(*, stdin_is_input: bool) -> bool:
    """Whether there is a terminal for the question."""
    try:
        with _terminal(stdin_is_input=stdin_is_input):
            return True
    except NoConsentError:
        return False


@contextmanager
def _terminal(*, stdin_is_input: bool) -> Iterator[int]:
    """Yield the descriptor of the terminal for the answer: standard input, or the controlling terminal.

    Raises:
        NoConsentError: There is none.
    """
    if not sys.stdin.isatty() and not stdin_is_input:
        raise _no_consent("standard input is not a terminal")
    try:
        if sys.stdin.isatty():
            descriptor = _opened_for_both(sys.stdin.fileno())
        else:
            descriptor = os.open(_CONTROLLING, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_consent(f"the terminal cannot be opened: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_for_both(number: int) -> int:
    """Return a new descriptor of a terminal, for writing and reading."""
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
        return os.dup(number)
    return os.open(os.ttyname(number), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _no_consent(why: str) -> NoConsentError:
    return NoConsentError(
        f"confirmation is needed, but {why}; nothing was written",
        hint="check the changes, then run the same command with --yes",
    )
