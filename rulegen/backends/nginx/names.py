"""Names of files, variables, zones and hidden locations: hashes, so that no byte of an object gets into one."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

INTERNAL: Final = "//rulegen/"
"""Paths of hidden locations start so: nginx makes one slash of two in every request, so none can ask for them."""

_MOST_NAMES: Final = 10_000
"""So many paths of each kind are kept: an agent requests those of all hosts at each change."""
HTTP2_IS_DIRECTIVE: Final = "http2 is a directive"
"""The trait of an nginx (1.25.1 and later) that switches HTTP/2 on by a directive, not for each address."""


_MODULE: Final = "module "


def module_trait(name: str, path: str) -> str:
    """Return the trait of an nginx that has a module, loaded from a file unless the path is empty."""
    return f"{_MODULE}{name} {path}"


def modules_of(traits: Iterable[str]) -> dict[str, str]:
    """Return the modules among the traits of an nginx: the path of each by name, empty for one that is built in."""
    pairs = (trait.removeprefix(_MODULE).partition(" ") for trait in traits if trait.startswith(_MODULE))
    return {name: path for name, _, path in pairs}


def mark(*texts: object) -> str:
    """Return 16 hexadecimal digits for a list of texts: nobody finds others with the same, to be taken for these."""
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
    """Return the name of the variable that holds a header of the request, without its dollar sign."""
    return f"http_{header.lower().replace('-', '_')}"
