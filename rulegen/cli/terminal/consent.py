"""Consent: nothing is written to a host without `--yes`, or a yes that somebody typed on a terminal."""

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
"""A terminal hands over one line of at most so many bytes (N_TTY_BUF_SIZE, tty_ioctl(4))."""


class NoConsentError(RulegenError):
    """There is something to write, no `--yes`, and nobody who could be asked."""


def require_consent(*, yes: bool, stdin_is_input: bool = False) -> None:
    """Return where the changes may be written; else this ends the command with exit code 1.

    The question and its answer go through the terminal itself, so it does not matter where standard output and standard
    error lead. What is piped into standard input is never an answer, and neither is an environment variable.

    Args:
        yes: Whether `--yes` was given.
        stdin_is_input: Whether objects were read from standard input (`-f -`): then the controlling terminal is asked.

    Raises:
        NoConsentError: There is no terminal to ask on.
        click.exceptions.Exit: The answer is not yes.
    """
    if yes:
        return
    with _terminal(stdin_is_input=stdin_is_input) as descriptor:
        try:
            os.write(descriptor, f"{QUESTION} [y/N]: ".encode())
            answer = os.read(descriptor, _LONGEST_ANSWER)
        except OSError as error:  # it hung up, or belongs to another session
            raise _no_consent(f"the terminal cannot be read: {error.strerror}") from None
        if not answer.endswith(b"\n"):
            os.write(descriptor, b"\n")
    if answer.strip().lower() not in {b"y", b"yes"}:
        note("Nothing was written.")
        raise click.exceptions.Exit(1)


@contextmanager
def _terminal(*, stdin_is_input: bool) -> Iterator[int]:
    """Yield the descriptor of the terminal that somebody types on: standard input's, or the controlling one.

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
    """Return a new descriptor of a terminal, to write and to read."""
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
        return os.dup(number)
    return os.open(os.ttyname(number), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _no_consent(why: str) -> NoConsentError:
    return NoConsentError(
        f"confirmation is needed, but {why}; nothing was written",
        hint="check the changes, then run the same command with --yes",
    )
