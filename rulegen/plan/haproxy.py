"""Changes of HAProxy's configuration, file by file."""

from __future__ import annotations

import re
from typing import Final

from rulegen.plan.proxy import PlannedProxy

LANGUAGE: Final = "haproxy"
MAIN: Final = "haproxy.cfg"
HAPROXY: Final = PlannedProxy(
    LANGUAGE, MAIN, re.compile(r"(?<=^    description )[0-9a-f]{32}$", re.MULTILINE), lambda path, _: ("file", path)
)
