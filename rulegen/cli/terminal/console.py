"""Output for people: colours only on a terminal, JSON for machines, progress of long work."""

from __future__ import annotations

import os
import re
import shutil
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

import click
import msgspec

from rulegen.cli.terminal.streams import drop_stderr
from rulegen.text import harmless, harmless_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LINES_AT_ONCE: Final = 1000
_WORD: Final = re.compile(" *[^ ]+")
"""A word with the spaces before it."""
_NARROWEST: Final = 40
"""Lines are folded for a terminal of at least this width."""
_FURTHER: Final = 4
"""How much further the next parts of a folded line are indented."""
_NO_COLOUR: Final = "\033[0m"
_COLOUR: Final = re.compile(r"(\033\[[0-9]{1,2}m)")


def has_colour() -> bool:
    """Whether standard output gets colours: a terminal that has them, or FORCE_COLOR; never with NO_COLOR.

    See https://no-color.org and https://force-color.org.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def print_lines(lines: Iterable[str], *, colour: bool = False) -> None:
    """Print lines to standard output, with control and format characters in them escaped.

    Args:
        lines: Lines without line ends.
        colour: Whether the lines contain colours of rulegen, which are kept; external text in such lines is already
            escaped.
    """
    shown = _with_our_colours if colour else harmless
    rest = iter(lines)
    while chunk := list(islice(rest, _LINES_AT_ONCE)):
        chunk.append("")
        sys.stdout.write(shown("\n".join(chunk)))
    sys.stdout.flush()


def print_long(lines: Iterable[str], *, colour: bool, pager: bool) -> None:
    """Print lines as `print_lines`; on a terminal that is too short for them, through the pager of $PAGER or `less`.

    Args:
        lines: Lines without line ends.
        colour: Whether the lines contain colours of rulegen.
        pager: Whether a pager may be used.
    """
    lines = folded(lines)
    if not (pager and sys.stdout.isatty() and sys.stdin.isatty() and os.environ.get("TERM") != "dumb"):
        print_lines(lines, colour=colour)
        return
    shown = _with_our_colours if colour else harmless
    text = "".join(f"{line}\n" for line in lines)
    if text.count("\n") < shutil.get_terminal_size().lines:
        print_lines(text.splitlines(), colour=colour)
    else:
        os.environ.setdefault("LESS", "FRX")  # as git: end at once if all fits, keep colours, leave the text there
        if os.geteuid() == 0:
            os.environ.setdefault("LESSSECURE", "1")  # somebody who may only run this command gets no shell
        click.echo_via_pager(shown(text), color=colour)


def folded(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines as they fit the terminal: long ones are folded between words. Elsewhere, lines stay as they are.

    The next parts of a line are indented further than its first one. A word is never broken. A colour of rulegen ends
    at the end of each part and begins again in the next.
    """
    if not sys.stdout.isatty():
        yield from lines
        return
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    for line in lines:
        if len(line) > width:
            yield from _folded(line, width)
        else:
            yield line


def _folded(line: str, width: int) -> Iterator[str]:
    """Yield the parts of one line; sequences for colours have no width."""
    plain = _COLOUR.sub("", line)
    indent = " " * (len(plain) - len(plain.lstrip(" ")) + _FURTHER)
    part, used, colour = "", 0, ""
    for word in _WORD.findall(line):
        size = len(_COLOUR.sub("", word))
        if used > len(indent) and used + size > width:
            yield part + (_NO_COLOUR if colour else "")
            word = word.lstrip(" ")  # noqa: PLW2901 - the space before it ends with the part
            size = len(_COLOUR.sub("", word))
            part, used = indent + colour, len(indent)
        part, used = part + word, used + size
        for code in _COLOUR.findall(word):
            colour = "" if code == _NO_COLOUR else code
    yield part


def print_json(document: Any) -> None:
    """Print a document to standard output, with all control and format characters in its texts escaped."""
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        encoded = msgspec.json.encode(_spelled(document))
    text = msgspec.json.format(encoded, indent=2).decode()
    sys.stdout.write(f"{harmless_json(text)}\n")
    sys.stdout.flush()


def _spelled(value: Any) -> Any:
    """Return a document in which bytes of names that are not UTF-8 are escaped, as `\\udcff`."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_spelled(key): _spelled(item) for key, item in value.items()}
        case list() | tuple():
            return [_spelled(item) for item in value]
        case _:
            return value


def complain(text: str) -> None:
    """Print lines of an error to standard error."""
    sys.stderr.write(harmless(text))


def note(line: str) -> None:
    """Print one line to standard error. If nothing reads it any more, the work continues: it may be incomplete."""
    try:
        sys.stderr.write(f"{harmless(line)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        drop_stderr()


def _with_our_colours(text: str) -> str:
    """Return the text as `harmless` does, but keep the colours of plans and findings."""
    parts = _COLOUR.split(text)
    parts[::2] = (harmless(part) for part in parts[::2])
    return "".join(parts)


class Progress:
    """A progress line on standard error that is overwritten; nothing is printed if it is not a terminal.

    As a context manager, it removes the line at the end.
    """

    def __init__(self, *, is_silent: bool = False) -> None:
        self._shows = not is_silent and sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        """Replace the previous line."""
        if self._shows:
            sys.stderr.write(f"\r\033[K{printable(line, 200)}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shows:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
