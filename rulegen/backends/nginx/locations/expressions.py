"""Expressions of objects as nginx is given them: with an end to how long each is tried.

nginx itself has no directive for it, but PCRE takes a limit from the beginning of an expression. Without one, a client
can have a worker try `/(.*)a(.*)b(.*)c` for the better part of a second with each request; with it, for some 10 ms, and
the answer is 500.
"""

from __future__ import annotations

import re
from typing import Final

STEPS: Final = 50_000
"""How often PCRE may turn back: a hundred times what a long URL takes with an expression that people write."""
_LINEAR: Final = re.compile(r"(?:\(\?i\))?(?:[^*+?{|\\]|\\.|\((?:\?:)?/\|(?:\$|\\z)\))*(?:\(?\.[*+]\)?\$?)?\Z")
"""What needs no limit: no choice but `(/|$)`, nothing repeated but any characters at the end, as `/app(/|$)(.*)`."""


def bounded(pattern: str) -> str:
    """Return an expression that is given up after so many steps, if it may take many."""
    if _LINEAR.match(pattern):
        return pattern
    return f"(*LIMIT_MATCH={STEPS}){pattern}"
