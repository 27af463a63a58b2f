"""Functions of commands for the relay: read what it serves, and change it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError, RulegenError
from rulegen.host.userspace import folder as of
from rulegen.host.userspace.exchange import MOST_BYTES, ask
from rulegen.host.userspace.relay.relay import CHANGE, SHOW
from rulegen.languages.listeners.state import format_proxy, line, read_proxy
from rulegen.safe_files import read_regular
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rulegen.languages.listeners.state import ProxyKey, ProxyObjects, ProxyValue

_ANSWER_S: Final = 10.0
"""Its supervisor replaces a relay that hangs sooner."""
_PROMPT_S: Final = 1.0
_FILE_MODE: Final = 0o600


def observe(folder: Path) -> ProxyObjects:
    """Return the objects of UDP that the relay serves; none if it does not run.

    Raises:
        HostError: It does not answer.
    """
    return _read(_asked(folder, f"{SHOW}\n"))


def observe_promptly(folder: Path) -> ProxyObjects | None:
    """Return the objects that the relay serves; None if it does not answer at once.

    Raises:
        HostError: Its answer cannot be read.
    """
    try:
        answer = ask(folder, of.RELAY, f"{SHOW}\n", _PROMPT_S, ends=True)
    except OSError:
        return None
    return None if answer == "" else _read(answer)


def kept(folder: Path) -> ProxyObjects:
    """Return the objects that were written down; none without any.

    Raises:
        HostError: They cannot be read.
    """
    try:
        return _read(read_regular(folder / of.RELAY_OBJECTS, MOST_BYTES).decode("utf-8", "replace"))
    except FileNotFoundError:
        return {}


def keep(folder: Path, objects: Mapping[ProxyKey, ProxyValue]) -> None:
    """Write down the objects with which the relay is started.

    Raises:
        OSError: They cannot be written.
    """
    new = folder / f"{of.RELAY_OBJECTS}.new"
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE), "w") as file:
        file.write(format_proxy(objects))
    new.rename(folder / of.RELAY_OBJECTS)


def change(folder: Path, before: Mapping[ProxyKey, ProxyValue], after: Mapping[ProxyKey, ProxyValue]) -> None:
    """Bring the relay from some objects to others.

    Raises:
        HostError: It does not accept them, or does not run.
    """
    removed = [f"-{line(key, value)}" for key, value in before.items() if key not in after]
    added = [f"+{line(key, value)}" for key, value in after.items() if before.get(key) != value]
    answer = _asked(folder, "\n".join([CHANGE, *removed, *added]))
    if answer != "ok\n":
        raise HostError(f"the relay of UDP does not accept changes: {printable(answer or 'it does not run', 300)}")


def _read(text: str | None) -> ProxyObjects:
    try:
        return read_proxy(text or "", "the relay")
    except RulegenError as error:
        raise HostError(f"reading the relay of UDP: {error.message}") from error


def _asked(folder: Path, question: str) -> str | None:
    try:
        answer = ask(folder, of.RELAY, question, _ANSWER_S, ends=True)
    except OSError as error:
        raise HostError(f"the relay of UDP does not answer: {error}") from error
    if answer == "":
        raise HostError("the relay of UDP has ended before it answered")
    return answer
