"""What the nginx of this node can do: an input of the compiler, so that nothing is written that it would reject."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS_MORE: Final = "ngx_http_headers_more_filter_module"
"""The module that can remove and replace any header of an answer, that of nginx itself too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxFacts:
    """The nginx that is installed, and who it may run as.

    Attributes:
        version: As `(1, 22, 1)`.
        built_in: Modules compiled in, as configure names them: `http_ssl_module`, `stream`.
        modules: Loadable modules, name to the path of the shared object: `ngx_stream_module`.
        openssl: Version of the OpenSSL that it runs with; empty if it has none.
        user: Who its workers run as; empty if there is no other user.
        group: Their group.
    """

    version: tuple[int, int, int]
    built_in: frozenset[str] = frozenset()
    modules: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    openssl: str = ""
    user: str = ""
    group: str = ""
