"""Regular expressions of objects, with a limit of PCRE's work for each match.

nginx has no directive for this limit, but PCRE reads one from the start of an expression. Without a limit, a client can
block a worker for almost a second with one request, for example with `/(.*)a(.*)b(.*)c`. With it, PCRE stops after
about 10 ms, and nginx responds with 500.
"""

from __future__ import annotations

import re
from typing import Final

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
