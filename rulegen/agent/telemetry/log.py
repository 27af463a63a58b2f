"""The agent's log: one line for each event, with fields, as text or JSON."""

from __future__ import annotations

import datetime as dt
import errno
import json
import select
import sys
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from rulegen.errors import RulegenError
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.text import harmless_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS: Final = ("debug", "info", "warning", "error")
LONGEST: Final = 1000
_PIECE: Final = 1000
"""Characters that are written at once: a pipe that is ready has room for 4,096 bytes."""
_PATIENCE_S: Final = 1.0
"""How long a line waits for the reader of a pipe; not at all while lines are lost."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def fault(error: Exception) -> dict[str, str]:
    """Return the fields of an error for the log; for an internal error, with its place in the code."""
    if isinstance(error, RulegenError):
        cause = error.__cause__
        message = str(cause) if isinstance(cause, RestoreError) else error.message  # without an excerpt of the script
        return {"error": message, "hint": error.hint}
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return {"error": f"internal error of rulegen: {type(error).__name__}: {error}", "where": where}


@dataclass(frozen=True, slots=True)
class AgentLog:
    """Writes lines.

    Attributes:
        is_json: Whether lines are JSON.
        least: The lowest level that is written.

    A line that cannot be written, for example on a full disk or to a pipe that nobody reads, neither ends the process
    nor stops it: the next one counts lost lines.
    """

    is_json: bool = False
    least: str = "info"
    out: TextIO = field(default_factory=lambda: sys.stderr)
    now: Callable[[], dt.datetime] = _now
    _lost: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def debug(self, message: str, **fields: Any) -> None:
        """Write a message for developers."""
        self._write("debug", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Write an informational message."""
        self._write("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Write a warning."""
        self._write("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Write an error."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if LEVELS.index(level) < LEVELS.index(self.least):
            return
        time = self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = {key: value for key, value in fields.items() if value not in ("", None)}
        if self.is_json:
            line = harmless_json(json.dumps({"time": time, "level": level, "message": message, **shown}, default=str))
        else:
            pairs = "".join(f" {key}={self._spelled(value)}" for key, value in shown.items())
            line = f"{time} {level.upper():7} {printable(message, LONGEST)}{pairs}"
        with self._lock:
            try:
                self._pass_on(f"{line}\n")
            except OSError as error:
                self._lost[error.strerror or str(error)] += 1
                return
            lost = sorted(self._lost.items())
            self._lost.clear()
        for reason, count in lost:
            self.warning("log lines could not be written", error=reason, count=count)

    def _pass_on(self, text: str) -> None:
        """Write to the output, but never wait long for somebody who does not read a pipe.

        Raises:
            OSError: The text cannot be written, or nobody reads it.
        """
        try:
            poll = select.poll()
            poll.register(self.out.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # it is no file of the system
            poll = None
        for start in range(0, len(text), _PIECE):
            if poll is not None and not poll.poll(0 if self._lost else 1000 * _PATIENCE_S):
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads the log")
            self.out.write(text[start : start + _PIECE])
            self.out.flush()

    @staticmethod
    def _spelled(value: Any) -> str:
        text = printable(str(value), LONGEST)
        return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text
