"""An error of a command: for people as lines, for machines as one JSON document; both on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.cli.terminal.console import complain
from rulegen.text import harmless_json

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION: Final = 1
_FOLDER_OUTPUT: Final = "export"
"""The command whose -o is a folder."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a command has failed.

    Attributes:
        message: The error.
        code: The exit code.
        hint: The next step; empty if there is none.
        text: How people see the message, if not as `Error: …`; such as the usage of a command.
        written, pending: For a write that failed: what was written and what was not; None for other errors.
    """

    message: str
    code: int = 1
    hint: str = ""
    text: str = ""
    written: tuple[str, ...] | None = None
    pending: tuple[str, ...] | None = None

    def report(self, *, as_json: bool) -> None:
        """Print it on standard error."""
        if as_json:
            complain(harmless_json(msgspec.json.encode(self._document()).decode()) + "\n")
            return
        complain(self.text or f"Error: {self.message}\n")
        for title, lines in (("Written", self.written), ("Not written", self.pending)):
            if lines is not None:
                complain(f"{title}: {'; '.join(lines) or 'nothing'}\n")
        if self.hint:
            complain(f"Next: {self.hint}\n")

    def _document(self) -> dict[str, Any]:
        texts = {
            "message": _utf8(self.message),
            "hint": _utf8(self.hint) or None,
            "exitCode": self.code,
            "written": [*map(_utf8, self.written or ())],
            "notWritten": [*map(_utf8, self.pending or ())],
        }
        return {"schemaVersion": SCHEMA_VERSION, "kind": "Error", **texts}


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON: its last -o or --output decides, as for the command itself."""
    if _FOLDER_OUTPUT in arguments[:1]:
        return False
    wanted = ""
    for number, word in enumerate(arguments):
        if word == "--":
            break
        if word in {"-o", "--output"}:
            wanted = arguments[number + 1] if number + 1 < len(arguments) else ""
        elif word.startswith("--output="):
            wanted = word.removeprefix("--output=")
        elif word.startswith("-o"):
            wanted = word.removeprefix("-o")
    return wanted == "json"


def _utf8(text: str) -> str:
    """Return a text in which bytes of names that are not UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
