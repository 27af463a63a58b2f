"""The servers of single backends, for endpoints that have changed since the whole configuration was compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.haproxy.names import mark
from rulegen.backends.haproxy.upstream import server_lines
from rulegen.languages.haproxy.text import format_sections
from rulegen.languages.haproxy.tree import ConfigSection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.backends.haproxy.configuration import HaproxyFiles
    from rulegen.model.ingress.ir import Upstream


def moved_servers(files: HaproxyFiles, upstreams: Iterable[Upstream]) -> dict[str, str] | None:
    """Return the servers of the backends of upstreams, by backend, as text; None if a map has them too.

    Args:
        files: The whole configuration, with other servers.
        upstreams: The upstreams with their present servers.

    Raises:
        UnwritableError: HAProxy cannot be given a value of them.
    """
    texts: dict[str, str] = {}
    for upstream in upstreams:
        if mark(upstream.name) in files.asked:
            return None
        for backend, policy in files.chosen.get(upstream.name, {}).items():
            lines = server_lines(upstream, policy, files.model.defaults.settings)
            servers = tuple(line for line in lines if line.words[0] == "server")
            texts[backend] = format_sections([ConfigSection("backend", backend, servers)])
    return texts
