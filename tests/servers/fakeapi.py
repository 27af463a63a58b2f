"""A small API server that really serves: paged LISTs and GETs over HTTP or HTTPS, with faults on demand.

It keeps objects as plain mappings, as `kubectl get -o json` prints them:

    with FakeApi() as api:
        api.put("services", {"metadata": {"namespace": "shop", "name": "web"}, "spec": {…}})
        api.fail("services", Fault.status(429, retry_after=0))
        read_cluster(api.kubeconfig(tmp_path))

It knows `limit` and `continue` (a token that it has forgotten is 410), label selectors of the forms `!key`, `key=value`
and `key!=value`, and the field selectors `spec.clusterIP!=None`, `status.phase!=…` and `metadata.name=…`.
What it was asked is in `requests`.

It also serves watches: each change has a resourceVersion, a watch goes on from any that is not older than what was
compacted away (410, or an ERROR event), objects that leave a selector are told as DELETED, bookmarks come if wanted.
Open watches can be disturbed, the server can go away and come back at the same address, with other credentials:

    api.disturb("services", HALF_LINE)
    api.compact()
    api.go_away(); api.delete("services", "shop", "web"); api.come_back()

And it can be written to: objects are created, updated and patched, the status apart, each with a new resourceVersion;
what a real server would refuse is refused (see `tests.fakes.writes`), and so is what `allows` does not allow.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.faults import Fault
from tests.fakes.objects import Backup, KeptObjects
from tests.fakes.requests import COLLECTIONS, anything, asked_for, reply, selector, verb_of
from tests.fakes.watches import Disturbance, Stream, StreamEndError, error_event
from tests.fakes.writes import WITH_STATUS, RefusalError, body_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass
class FakeApi(KeptObjects):
    """The server. A context manager; serves from its start to its end.

    Attributes:
        token: What clients must bring as bearer token; None lets all in.
        certificate: Certificate and key files for HTTPS; None is HTTP.
        knows_field_selectors: Whether it takes them; old servers refuse with 400.
        bookmark_every: Seconds between two bookmarks of a watch; 0 for none.
        refuses_by_status: Whether a watch from too old a version gets 410 as status, or else as an event.
        has_chunks: Whether watches come in chunks, or else until the connection ends, as behind an old proxy.
        has_null_items: Whether an empty list has `items: null`, as Go prints one now and then.
        allows: What may be done, by verb, API group and resource; None lets all be done.
        allows_at: What may be done, by path and query, as a role for a namespace or for single names has it.
        knows_metadata: Whether it sends metadata alone to whoever wants no more; old servers send whole objects.
        ahead_s: By how much its clock is ahead.
        is_prompt: Whether it sends each piece at once, as a real one does, and not when the last one was confirmed.
        requests: Path and query of all requests, in order.
        done: Verb, API group and resource of all requests, as a role names them.
    """

    token: str | None = None
    certificate: tuple[Path, Path] | None = None
    knows_field_selectors: bool = True
    bookmark_every: float = 0.0
    refuses_by_status: bool = True
    has_chunks: bool = True
    has_null_items: bool = False
    allows: Callable[[tuple[str, str, str]], bool] | None = None
    allows_at: Callable[[str, Mapping[str, str]], bool] | None = None
    knows_metadata: bool = True
    is_prompt: bool = False
    ahead_s: float = 0.0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    _hushed: set[tuple[str, str]] = field(default_factory=set)
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _disturbances: dict[str, deque[Disturbance]] = field(default_factory=lambda: defaultdict(deque))
    _lists: dict[str, tuple[list[dict[str, Any]], int]] = field(default_factory=dict)
    _connections: set[socket.socket] = field(default_factory=set)
    _port: int = 0

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    def come_back(self) -> None:
        """Listen, at the same address as before."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"
            disable_nagle_algorithm: ClassVar[bool] = fake.is_prompt

            def do_GET(self) -> None:
                fake._get(self)

            def do_POST(self) -> None:
                fake._get(self)

            def do_PUT(self) -> None:
                fake._get(self)

            def do_PATCH(self) -> None:
                fake._get(self)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + fake.ahead_s)

            def log_message(self, *_: object) -> None:
                """Say nothing: `requests` has it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            closing: threading.Event

            def finish_request(self, request: socket.socket, client_address: Any) -> None:
                fake._connections.add(request)
                try:
                    if not self.closing.is_set():  # else it was taken just before, and nobody would break it
                        super().finish_request(request, client_address)
                finally:
                    fake._connections.discard(request)

            def handle_error(self, *_: object) -> None:
                """Say nothing: clients hang up in the middle, which is tested."""

        self._closing = threading.Event()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._server.closing = self._closing
        self._port = self._server.server_address[1]
        if self.certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*self.certificate)
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def go_away(self) -> None:
        """Break all connections and listen no more; what is kept stays."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.break_connections()

    def break_connections(self) -> None:
        """Break all connections without a word."""
        for each in list(self._connections):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def show_certificate(self, certificate: tuple[Path, Path]) -> None:
        """Show another certificate from the next handshake on."""
        self.certificate = certificate
        self._tls.load_cert_chain(*certificate)

    @property
    def url(self) -> str:
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, folder: Path, *, user: dict[str, Any] | None = None, **cluster: Any) -> str:
        """Write a kubeconfig for this server and return its path; `cluster` adds fields to the cluster."""
        path = folder / "kubeconfig"
        login = user if user is not None else ({"token": self.token} if self.token else {})
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "test", "user": login}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(json.dumps(document))
        return str(path)

    def restore(self, backup: Backup) -> None:
        """Put the server back to a backup: what happened since never did, and its versions are given once more.

        As it is done: the server is away for it. As after a restore of etcd, a watch from a version that it does not
        have yet is answered with 200 and silence.
        """
        self.go_away()
        with self._changed:
            self._version = backup.version
            self._objects = defaultdict(dict, {key: dict(kept) for key, kept in backup.objects.items()})
            self._changes = [each for each in self._changes if each.version <= backup.version]
            self._oldest = min(self._oldest, backup.version)
            self._lists.clear()
        self.come_back()

    def disturb(self, collection: str, *disturbances: Disturbance) -> None:
        """Do these things to watches of a collection, one each, now or as soon as there is one."""
        with self._changed:
            self._disturbances[collection].extend(disturbances)
            self._changed.notify_all()

    def calm_down(self) -> None:
        """Forget all faults that are still to come."""
        with self._changed:
            self._faults.clear()
            self._disturbances.clear()

    def fail(self, collection: str, *faults: Fault | None) -> None:
        """Answer the next requests for a collection with these faults, one each; None answers as it should."""
        self._faults[collection].extend(fault or Fault(self._serve) for fault in faults)

    def hush(self, collection: str, *names: str) -> None:
        """Be silent whenever these objects are asked for, alone or among others, until `speak`."""
        with self._changed:
            self._hushed.update((collection, name) for name in names)

    def speak(self) -> None:
        """Answer all that was asked for in silence."""
        with self._changed:
            self._hushed.clear()
            self._changed.notify_all()

    def _is_hushed(self, collection: str, query: Mapping[str, str], name: str) -> bool:
        asked = query.get("fieldSelector", "").removeprefix("metadata.name=") or name
        return any(of == collection and asked in ("", each) for of, each in self._hushed)

    def forget_pages(self) -> None:
        """Forget all continue tokens that are out, as a real server does after five minutes."""
        self._lists.clear()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.server.closing.is_set():  # one that is half away would answer some and refuse others
            handler.close_connection = True
            return
        url = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.requests.append((url.path, query))
        collection, named = asked_for(url.path.removesuffix("/status"))
        with self._changed:
            while self._is_hushed(collection, query, named[1] if named else "") and not self._closing.is_set():
                self._changed.wait(0.2)
        handler.content = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.done.append(verb_of(handler))
        with suppress(IndexError):
            fault = self._faults[collection].popleft()
            fault.answer(handler)
            return
        self._serve(handler)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path, query = urlsplit(handler.path).path, parse_qs(urlsplit(handler.path).query)
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            Fault.status(401, "Unauthorized").answer(handler)
            return
        verb = verb_of(handler)
        asked = {key: values[0] for key, values in query.items()}
        if (self.allows is not None and not self.allows(verb)) or not (self.allows_at or anything)(path, asked):
            Fault.status(403, f"cannot {verb[0]} resource {verb[2]}").answer(handler)
            return
        if handler.command != "GET":
            self._write(handler, path)
            return
        collection, name = asked_for(path)
        if not collection:
            Fault.status(404, "the server could not find the requested resource").answer(handler)
        elif name is None:
            self._serve_collection(handler, collection, {key: values[0] for key, values in query.items()})
        elif each := self._objects[collection].get(name):
            reply(handler, 200, each)
        else:
            Fault.status(404, f'{collection} "{name[1]}" not found').answer(handler)

    def _write(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        """Do what a POST, PUT or PATCH asks for, or say why not."""
        path, sub = (path.removesuffix("/status"), "status") if path.endswith("/status") else (path, "")
        collection, name = asked_for(path)
        kind = handler.headers.get("Content-Type", "")
        try:
            if not collection or (sub and collection not in WITH_STATUS):
                raise RefusalError(404, "the server could not find the requested resource")  # noqa: TRY301
            document = body_of(handler.content)
            with self._changed:
                kept = self._written(handler.command, kind, path, collection, name, sub, document)
        except RefusalError as error:
            Fault.status(error.code, error.message).answer(handler)
            return
        reply(handler, 201 if handler.command == "POST" else 200, kept)

    def _serve_collection(self, handler: BaseHTTPRequestHandler, collection: str, query: dict[str, str]) -> None:
        if "fieldSelector" in query and not self.knows_field_selectors:
            Fault.status(400, "field label not supported: spec.clusterIP").answer(handler)
        elif query.get("watch") in {"1", "true"}:
            self._watch(handler, collection, query)
        else:
            self._list(handler, collection, query)

    def _list(self, handler: BaseHTTPRequestHandler, collection: str, query: dict[str, str]) -> None:
        _, api_version, kind = COLLECTIONS[collection]
        token = query.get("continue")
        with self._changed:
            if token is None:
                selects = selector(handler.path)
                matching = [each for _, each in self._candidates(collection, handler.path) if selects(each)]
                rest = [{key: each[key] for key in each if key not in {"kind", "apiVersion"}} for each in matching]
                version = self._version
            elif token in self._lists:
                rest, version = self._lists.pop(token)
            else:
                rest, version = [], 0
        if not version:
            Fault.status(410, "The provided continue parameter is too old").answer(handler)
            return
        limit = int(query.get("limit", "0")) or len(rest)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if rest[limit:]:
            metadata["continue"] = f"token-{len(self.requests)}-{time.monotonic_ns()}"
            metadata["remainingItemCount"] = len(rest) - limit
            self._lists[metadata["continue"]] = rest[limit:], version
        items = None if self.has_null_items and not rest else rest[:limit]
        if items is not None and self._wants_metadata(handler):
            kind, api_version = "PartialObjectMetadata", "meta.k8s.io/v1"
            items = [{"kind": kind, "apiVersion": api_version, "metadata": each["metadata"]} for each in items]
        reply(handler, 200, {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": items})

    def _wants_metadata(self, handler: BaseHTTPRequestHandler) -> bool:
        return self.knows_metadata and "as=PartialObjectMetadata" in handler.headers.get("Accept", "")

    def _watch(self, handler: BaseHTTPRequestHandler, collection: str, query: dict[str, str]) -> None:
        version = int(query["resourceVersion"])
        if version < self._oldest and self.refuses_by_status:
            Fault.status(410, f"too old resource version: {version} ({self._oldest})").answer(handler)
            return
        stream = Stream(handler, self._closing, has_chunks=self.has_chunks)
        try:
            if version < self._oldest:
                error_event(410, f"too old resource version: {version} ({self._oldest})").act(stream)
            self._stream(stream, collection, handler.path, version)
        except StreamEndError:
            pass

    def _stream(self, stream: Stream, collection: str, path: str, version: int) -> None:
        """Tell all changes after a version, until the client wants no more."""
        selects, query = selector(path), parse_qs(urlsplit(path).query)
        wants_bookmarks = self.bookmark_every and "allowWatchBookmarks" in query
        now = time.monotonic()
        end, bookmark = now + int(query["timeoutSeconds"][0]), now + self.bookmark_every
        _, api_version, kind = COLLECTIONS[collection]
        is_partial = self._wants_metadata(stream.handler)
        if is_partial:
            kind, api_version = "PartialObjectMetadata", "meta.k8s.io/v1"
        while not self._closing.is_set() and time.monotonic() < end and not stream.is_left():
            with self._changed:
                disturbance = self._disturbances[collection].popleft() if self._disturbances[collection] else None
                fresh = [each for each in self._since(version) if each.collection == collection]
                if not fresh and disturbance is None:
                    self._changed.wait(0.02)
            for each in fresh:
                version = each.version
                event = each.seen_through(selects)
                if event and is_partial:
                    event["object"] = {"kind": kind, "apiVersion": api_version, "metadata": event["object"]["metadata"]}
                if event:
                    stream.event(event["type"], event["object"])
            if disturbance:
                disturbance.act(stream)
            if wants_bookmarks and time.monotonic() > bookmark:
                bookmark = time.monotonic() + self.bookmark_every
                metadata = {"resourceVersion": str(self._settled(collection, version))}
                stream.event("BOOKMARK", {"kind": kind, "apiVersion": api_version, "metadata": metadata})
        stream.finish()
