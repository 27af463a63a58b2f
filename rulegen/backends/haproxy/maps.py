"""Keys of maps: paths and expressions in a spelling that a line of a map can contain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.net import Network

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~/-]")
_ESCAPED: Final = re.compile(r"\\(.)|( )")
_LIMITED: Final = "(*"
_LINEAR: Final = re.compile(r"(?:\(\?i\))?(?:[^*+?{|\\]|\\.|\((?:\?:)?/\|(?:\$|\\z)\))*(?:\(?\.[*+]\)?\$?)?\Z")
"""Expressions that need no limit. They have no alternatives except `(/|$)`, and repeat only `.` and only at the end."""
STEPS: Final = 50_000
"""Maximum number of backtracking steps of PCRE."""
NO_EXPRESSION: Final = "-"
"""The last value of a map of expressions: certainly none of them matches."""
_MOST_PARTS: Final = 100


def path_key(path: str) -> str:
    """Return a path as the Lua program writes it: every byte but letters, digits and `_.~/-` as `%XX`."""
    return "".join(
        character if _PLAIN.match(character) else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in path
    )


def network_entries(networks: Iterable[Network]) -> list[tuple[str, str]]:
    """Return the entries of a map of networks: each with its family, 4 or 6.

    HAProxy also finds an IPv4 network for an IPv6 address that has an IPv4 address in it, and the other way round; the
    family distinguishes these from addresses of the network.
    """
    return [(text, "6" if ":" in text else "4") for text in map(str, networks)]


def expression_key(pattern: str, *, ignores_case: bool) -> str:
    """Return an expression as the key of a map of expressions: without spaces, with a limit of matching steps."""
    plain = pattern.removeprefix("(?i)")
    flag = "(?i)" if ignores_case or plain != pattern else ""
    text = _ESCAPED.sub(lambda match: r"\x20" if match[2] or match[1] == " " else match[0], plain)
    limit = "" if _LINEAR.match(text) else f"(*LIMIT_MATCH={STEPS})"
    return f"{limit}{flag}{text}"


def certainly_without(*patterns: tuple[str, bool]) -> str:
    r"""Return an expression that matches only texts that none of these expressions can match.

    HAProxy takes an expression that PCRE gives up for one that does not match. This one does not match either then.

    Args:
        patterns: Expressions, and whether each ignores the case.
    """
    limit = f"(*LIMIT_MATCH={STEPS * min(len(patterns), _MOST_PARTS)})" if patterns else ""
    return rf"{limit}\A{''.join(map(_absent, patterns))}"


def _absent(pattern: tuple[str, bool]) -> str:
    return rf"(?![\s\S]*?{_grouped(*pattern)})"


def _grouped(text: str, ignores_case: bool) -> str:  # noqa: FBT001 - a pair
    plain = text.removeprefix("(?i)")
    without_spaces = _ESCAPED.sub(lambda match: r"\x20" if match[2] or match[1] == " " else match[0], plain)
    return f"({'?i' if ignores_case or plain != text else '?'}:{without_spaces})"


def ordered_expressions(named: Iterable[tuple[str, bool, str]]) -> Iterator[tuple[str, str]]:
    r"""Yield the entries of a map of expressions, in which the first that matches counts.

    Behind an expression that PCRE may give up, the others match only where this one certainly does not. The last entry
    says that none matches; without any match, it is unknown.

    Args:
        named: Expressions, whether each ignores the case, and its value.
    """
    hard: list[tuple[str, bool]] = []
    for pattern, ignores_case, name in named:
        key = expression_key(pattern, ignores_case=ignores_case)
        yield (rf"{certainly_without(*hard)}[\s\S]*?{_grouped(pattern, ignores_case)}" if hard else key), name
        if key.startswith(_LIMITED):
            hard.append((pattern, ignores_case))
    yield certainly_without(*hard), NO_EXPRESSION


def substitution(target: str) -> str:
    r"""Return a target with `$1` to `$9` as the value of a map that puts captures in, as `\1`."""
    return re.sub(r"\$([1-9])", r"\\\1", target.replace("\\", "\\\\"))
