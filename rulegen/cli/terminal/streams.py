"""Standard streams in a usable state, whatever the parent process has set."""

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
    """Open closed standard streams, and make them accept any text.

    Otherwise a socket would get the number of a closed stream, and a locale without UTF-8 or a file name that is not
    UTF-8 would end the command during its output.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
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
    """End by SIGPIPE, like other tools, if nothing reads standard output any more: `rulegen plan | head`.

    Python ignores that signal, so that a disconnected peer is an error of one connection only. A print then raises
    BrokenPipeError, which click would turn into exit code 1.
    """
    try:
        yield
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise  # if the signal is blocked


def drop_stderr() -> None:
    """Discard further output on standard error, because nothing reads it; the work itself continues."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    r"""Replace characters that an encoding does not have: symbols of rulegen by ASCII, all others by `\uXXXX`."""
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
