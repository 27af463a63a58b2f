"""Standard streams as a command needs them, however anyone who started us has left them."""

from __future__ import annotations

import codecs
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN = {"✓": "ok", "✗": "x", "·": "-", "→": "->", "…": "...", "–": "-", "—": "-"}
_HANDLER = "rulegen.plain"


def open_streams() -> None:
    """Have streams where anyone who started us closed them, and have them take any text.

    Without the first, a socket takes the number of a closed stream. Without the second, a locale without UTF-8, or a
    file's name that is no UTF-8, ends the command in the middle of its output.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)  # noqa: FBT003 - by position only
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
    codecs.register_error(_HANDLER, _spell_out)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a stream of a test has none
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """End as a tool in a pipe does, by SIGPIPE, where nobody reads standard output any more: `rulegen plan | head`.

    Python ignores that signal, so that a peer that goes away is an error of one connection only. Whoever prints finds a
    BrokenPipeError instead, of which click would make exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise  # where the signal is blocked


def drop_stderr() -> None:
    """Have what is still written to standard error go nowhere, as nobody reads it: the work itself continues."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    r"""Replace what an encoding does not have: signs of ours by plain ones, all else by `\uXXXX`, as JSON has it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escaped(character) for character in text), error.end


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
