"""HTTP servers of the agent: the pages of a port, and which clients may see them."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from rulegen.agent.pages_server.access import field_of_proxy, is_loopback, is_loopback_name, is_ours
from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.pages_server.listener import Connection, ListeningPort, opened
from rulegen.agent.pages_server.rendering import Slow
from rulegen.agent.pages_server.reply import Encoded, Reply, answer_of, encoded
from rulegen.agent.pages_server.request import NOT_ANSWERED, PROBING
from rulegen.errors import HostError
from rulegen.host.node.socket_owner import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.agent.pages_server.request import Request

AS_JSON: Final = "?output=json"
"""Suffix for a page in JSON, which clients request by a query or by the Accept header."""
AGAIN_S: Final = 5.0
"""Seconds between attempts to open a taken address."""


class PageServer:
    """Answers GET and HEAD on one address; also OPTIONS where probes are answered."""

    def __init__(
        self,
        address: str,
        port: int,
        pages: Mapping[str, Callable[[], Reply]],
        *,
        private: Collection[str] = frozenset(),
        probes: bool = False,
        names: Callable[[], Collection[str]] = frozenset,
        loop: HttpLoop | None = None,
    ) -> None:
        """Start listening and answering.

        Args:
            address: IPv4 or IPv6.
            port: TCP port; 0 for any free port.
            pages: Answers by path; `*` is for every other path. See `AS_JSON`.
            private: Paths for programs of root on this host only, whatever the listening address.
            probes: Whether load balancers and the kubelet use this server. Its pages are made in the thread of the loop
                and must be fast. A request with another Host gets the status without a body, because load balancers may
                send any name.
            names: Returns the names of this node, in lower case. Other pages reject requests for other hosts.
            loop: Serves the clients; None to create a loop.

        Raises:
            HostError: The server cannot listen on the address.
        """
        self._pages = pages
        self._private = private
        self._probes = probes
        self._names = names
        self._loop = loop or HttpLoop()
        self._listener = ListeningPort(opened(address, port), self._answer)
        self.port: int = self._listener.opened.getsockname()[1]
        self._loop.add(self._listener)

    def stop(self) -> None:
        """Stop listening."""
        self._loop.remove(self._listener)

    def _answer(self, request: Request, connection: Connection) -> Encoded | Slow:
        is_private = request.path in self._private
        if request.method == PROBING and (is_private or not self._probes):
            return encoded(Reply(NOT_ANSWERED.status, f"{NOT_ANSWERED.reason}\n"))
        if is_private and (refusal := _refusal_of_stranger(request, connection)):
            return encoded(refusal)
        names_us = is_ours(request.host, self._names())
        if not names_us and not self._probes:
            return encoded(Reply(421, "this is not a name of this node: use its address, or see --metrics-host\n"))
        page = self._page(request)
        if page is None:
            return encoded(Reply(404, "not found\n"))
        if self._probes and not is_private:
            return answer_of(page if names_us else lambda: replace(page(), body=""))
        if is_private:
            return Slow(page, "private pages", lambda: _refusal_of_user(connection))
        return Slow(page, request.path if request.path in self._pages else "*")

    def _page(self, request: Request) -> Callable[[], Reply] | None:
        wants_json = parse_qs(request.query).get("output") == ["json"]
        wants_json = wants_json or "application/json" in request.headers.get("accept", "")
        pages = self._pages
        return (pages.get(request.path + AS_JSON) if wants_json else None) or pages.get(request.path) or pages.get("*")


class RetryingServer:
    """A `PageServer` that starts as soon as its address is free: kube-proxy may still use it."""

    def __init__(self, serve: Callable[[], PageServer], taken: Callable[[str], None]) -> None:
        """Start listening; if the address is taken, try again every few seconds.

        Args:
            serve: Returns a server, or raises `HostError`.
            taken: Called once, with the reason, if the address is taken.
        """
        self._serve = serve
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: PageServer | None = None
        try:
            self._server = serve()
        except HostError as error:
            taken(error.message)
            self._thread = threading.Thread(target=self._wait, name="http, waiting", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._server is not None:
            self._server.stop()

    def _wait(self) -> None:
        while not self._ended.wait(AGAIN_S):
            try:
                self._server = self._serve()
            except HostError:
                continue
            return


def _refusal_of_stranger(request: Request, connection: Connection) -> Reply | None:
    """Return why a request for a private page is rejected: it did not come directly from this host. None if it did."""
    if not (is_loopback(connection.client[0]) and is_loopback(connection.server[0])):
        return Reply(403, "this page is for programs on this host only: use a loopback address\n")
    if not is_loopback_name(request.host):
        return Reply(403, "this page is for programs on this host only: use localhost or a loopback address as Host\n")
    if (name := field_of_proxy(request.headers)) is not None:
        return Reply(
            403, f"this page is for programs on this host only: this request came through a proxy (header {name})\n"
        )
    return None


def _refusal_of_user(connection: Connection) -> Reply | None:
    """Return why the user of a connection may not see private pages; None for root and for the user of the agent."""
    try:
        owner = owner_of(connection.client, connection.server)
    except OSError as error:
        return Reply(403, f"the kernel does not report the owner of this connection: {error.strerror}\n")
    if owner not in (0, os.geteuid()):
        return Reply(403, "this page is for root only\n")
    return None
