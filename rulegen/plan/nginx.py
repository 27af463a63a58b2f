"""Changes of nginx's configuration, file by file."""

from __future__ import annotations

import re
from typing import Final

from rulegen.languages.nginx.main_file import MAIN
from rulegen.plan.proxy import PlannedProxy

LANGUAGE: Final = "nginx"


def _named(path: str, text: str) -> tuple[str, str]:
    """Return the purpose of an obsolete file, from its content."""
    if path.startswith("hosts/"):
        match = re.search(r"^ *server_name (\S+?)(?: .*)?;$", text, re.MULTILINE)
        name = match[1] if match else path
        return "host", "" if name == "_" else name
    if path.startswith("upstreams/"):
        match = re.search(r"^upstream ([^.\s]+\.[^.\s]+)", text, re.MULTILINE)
        return "upstream", match[1].replace(".", "/", 1) if match else path
    return "file", path


NGINX: Final = PlannedProxy(LANGUAGE, MAIN, re.compile(r"\b[0-9a-f]{32}\b(?=;)"), _named)
plan_site: Final = NGINX.plan_site
plan_ending: Final = NGINX.plan_ending
