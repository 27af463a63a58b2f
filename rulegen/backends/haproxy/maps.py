"""Keys of maps: paths and expressions in a spelling that a line of a map can hold."""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~/-]")
_ESCAPED: Final = re.compile(r"\\(.)|( )")
_LINEAR: Final = re.compile(r"(?:\(\?i\))?(?:[^*+?{|\\]|\\.|\((?:\?:)?/\|(?:\$|\\z)\))*(?:\(?\.[*+]\)?\$?)?\Z")
"""What needs no limit: no choice but `(/|$)`, nothing repeated but any characters at the end, as `/app(/|$)(.*)`."""
STEPS: Final = 50_000
"""How often PCRE may turn back."""


def path_key(path: str) -> str:
    """Return a path as the Lua program writes it: every byte but letters, digits and `_.~/-` as `%XX`."""
    return "".join(
        character if _PLAIN.match(character) else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in path
    )


def expression_key(pattern: str, *, ignores_case: bool) -> str:
    """Return an expression as the key of a map of expressions: without spaces, with an end to how long it is tried."""
    plain = pattern.removeprefix("(?i)")
    flag = "(?i)" if ignores_case or plain != pattern else ""
    text = _ESCAPED.sub(lambda match: r"\x20" if match[2] or match[1] == " " else match[0], plain)
    limit = "" if _LINEAR.match(text) else f"(*LIMIT_MATCH={STEPS})"
    return f"{limit}{flag}{text}"


def substitution(target: str) -> str:
    r"""Return a target with `$1` to `$9` as the value of a map that puts captures in, as `\1`."""
    return re.sub(r"\$([1-9])", r"\\\1", target.replace("\\", "\\\\"))
