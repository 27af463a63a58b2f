"""Names of files, variables, zones and internal locations. They are hashes, so they contain no text of an object."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

INTERNAL: Final = "//rulegen/"
"""Prefix of the paths of internal locations.

No client can request such a path: nginx merges adjacent slashes of a request's path into one (`merge_slashes`).
"""

_MOST_NAMES: Final = 10_000
"""Maximum number of cached paths of each kind: `run` needs the paths of all hosts at each change."""
HTTP2_IS_DIRECTIVE: Final = "http2 is a directive"
"""Trait of nginx 1.25.1 and later: HTTP/2 is switched on by the directive `http2`, not by a parameter of `listen`."""


_MODULE: Final = "module "


def module_trait(name: str, path: str) -> str:
    """Return the trait of an nginx that has a module; `path` is the module's file, empty for a built-in module."""
    return f"{_MODULE}{name} {path}"


def modules_of(traits: Iterable[str]) -> dict[str, str]:
    """Return the modules among the traits of an nginx: path by name, as for `module_trait`."""
    pairs = (trait.removeprefix(_MODULE).partition(" ") for trait in traits if trait.startswith(_MODULE))
    return {name: path for name, _, path in pairs}


def mark(*texts: object) -> str:
    """Return 16 hexadecimal digits that identify a list of texts.

    An attacker cannot find two lists with equal digits.
    """
    return hashlib.sha256("\0".join(map(str, texts)).encode()).hexdigest()[:16]


@lru_cache(maxsize=_MOST_NAMES)
def host_file(host: str) -> str:
    """Return the path of a host's file in a configuration."""
    return f"hosts/{hashlib.sha256(host.encode()).hexdigest()[:16]}.conf"


@lru_cache(maxsize=_MOST_NAMES)
def upstream_file(service: object) -> str:
    """Return the path of the file with a Service's upstreams."""
    return f"upstreams/{hashlib.sha256(str(service).encode()).hexdigest()[:16]}.conf"


def header_variable(header: str) -> str:
    """Return the name of the nginx variable for a request header, without its dollar sign."""
    return f"http_{header.lower().replace('-', '_')}"
