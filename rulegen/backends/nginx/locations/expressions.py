"""What a location compares and rewrites, with a limit of PCRE's work for expressions of objects.

nginx has no directive for this limit, but PCRE reads one from the start of an expression. Without a limit, a client can
block a worker for almost a second with one request, for example with `/(.*)a(.*)b(.*)c`. With it, PCRE stops after
about 10 ms, and nginx responds with 500.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.tree import template, variable
from rulegen.model.ingress.ir import MatchKind

if TYPE_CHECKING:
    from rulegen.languages.nginx.tree import Word
    from rulegen.model.ingress.ir import Location

STEPS: Final = 50_000
"""Maximum of internal PCRE matching steps: a hundred times what common expressions need for a long URL."""
_LINEAR: Final = re.compile(r"(?:\(\?i\))?(?:[^*+?{|\\]|\\.|\((?:\?:)?/\|(?:\$|\\z)\))*(?:\(?\.[*+]\)?\$?)?\Z")
"""Expressions that need no limit.

They have no alternatives except `(/|$)`, and repeat only `.` and only at the end, as in `/app(/|$)(.*)`.
"""


def bounded(pattern: str) -> str:
    """Return an expression with the limit if it needs one."""
    if _LINEAR.match(pattern):
        return pattern
    return f"(*LIMIT_MATCH={STEPS}){pattern}"


def matching(location: Location) -> tuple[str, ...]:
    """Return the arguments of the directive `location`."""
    kind, path = location.kind, location.path
    match kind:
        case MatchKind.PREFIX:
            return (path,)
        case MatchKind.EXACT:
            return "=", path
        case MatchKind.REGEX:
            return "~*", bounded(path)
        case MatchKind.REGEX_CASED:
            return "~", bounded(path)


def rewritten(target: str) -> Word:
    """Return the target of a rewrite; nginx replaces `$1` to `$9` by captures."""
    pieces = re.split(r"\$([1-9])", target)
    words: list[Word] = [variable(piece) if number % 2 else piece for number, piece in enumerate(pieces)]
    return template("%s" * len(words), *words)
