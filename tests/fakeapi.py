"""A small API server that really serves: paged LISTs and GETs over HTTP or HTTPS, with faults on demand.

It keeps objects as plain mappings, as `kubectl get -o json` prints them:

    with FakeApi() as api:
        api.put("services", {"metadata": {"namespace": "shop", "name": "web"}, "spec": {…}})
        api.fail("services", Fault.status(429, retry_after=0))
        read_cluster(api.kubeconfig(tmp_path))

It knows `limit` and `continue` (a token that it has forgotten is 410), label selectors of the form `!key`, and the
field selectors `spec.clusterIP!=None` and `metadata.name=…`. What it was asked is in `requests`.

It also serves watches: each change has a resourceVersion, a watch goes on from any that is not older than what was
compacted away (410, or an ERROR event), objects that leave a selector are told as DELETED, bookmarks come if wanted.
Open watches can be disturbed, the server can go away and come back at the same address, with other credentials:

    api.disturb("services", HALF_LINE)
    api.compact()
    api.go_away(); api.delete("services", "shop", "web"); api.come_back()

And it can be written to: objects are created, updated and patched, the status apart, each with a new resourceVersion;
what a real server would refuse is refused (see `tests.fakewrites`), and so is what `allows` does not allow.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from bisect import bisect_right
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakewatch import Change, Disturbance, Stream, StreamEndError, error_event
from tests.fakewrites import WITH_STATUS, RefusalError, body_of, changed, check, patched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

COLLECTIONS = {
    "services": ("/api/v1/services", "v1", "Service"),
    "nodes": ("/api/v1/nodes", "v1", "Node"),
    "endpointslices": ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    "ingresses": ("/apis/networking.k8s.io/v1/ingresses", "networking.k8s.io/v1", "Ingress"),
    "ingressclasses": ("/apis/networking.k8s.io/v1/ingressclasses", "networking.k8s.io/v1", "IngressClass"),
    "secrets": ("/api/v1/secrets", "v1", "Secret"),
    "configmaps": ("/api/v1/configmaps", "v1", "ConfigMap"),
    "events": ("/apis/events.k8s.io/v1/events", "events.k8s.io/v1", "Event"),
    "leases": ("/apis/coordination.k8s.io/v1/leases", "coordination.k8s.io/v1", "Lease"),
    # Last: what is in a namespace has its path below these.
    "namespaces": ("/api/v1/namespaces", "v1", "Namespace"),
}


@dataclass(frozen=True)
class Fault:
    """One answer that is not what was asked for; `answer` writes it."""

    answer: Callable[[BaseHTTPRequestHandler], None]

    @classmethod
    def status(cls, code: int, message: str = "", *, retry_after: int | None = None) -> Self:
        """Answer with a status and a v1 Status that carries a message."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            reply(handler, code, {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}, headers)

        return cls(answer)

    @classmethod
    def body(cls, content: bytes, *, length: int | None = None) -> Self:
        """Answer 200 with these bytes; a greater length than they have is a body cut short."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content) if length is None else length))
            handler.end_headers()
            handler.wfile.write(content)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def packed(cls, document: object) -> Self:
        """Answer 200 with a document, in chunks, and by gzip though nobody asked for that: some proxies do."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            content = gzip.compress(json.dumps(document).encode())
            handler.send_response(200)
            handler.send_header("Content-Encoding", "gzip")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for start in range(0, len(content), 40):
                piece = content[start : start + 40]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")

        return cls(answer)

    @classmethod
    def stall(cls, released: threading.Event) -> Self:
        """Answer the head, and then nothing until the event (or the end of the test)."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            released.wait(30)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def mute(cls, released: threading.Event) -> Self:
        """Say nothing at all until the event (or the end of the test)."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            released.wait(30)
            handler.close_connection = True

        return cls(answer)

    @classmethod
    def hang_up(cls) -> Self:
        """Close the connection without a word."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.close_connection = True

        return cls(answer)


@dataclass(frozen=True)
class Backup:
    """What a server kept at a version: all objects by collection and name."""

    version: int
    objects: dict[str, dict[tuple[str, str], dict[str, Any]]]


@dataclass
class FakeApi:
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
    _objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    _hushed: set[tuple[str, str]] = field(default_factory=set)
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _disturbances: dict[str, deque[Disturbance]] = field(default_factory=lambda: defaultdict(deque))
    _lists: dict[str, tuple[list[dict[str, Any]], int]] = field(default_factory=dict)
    _changes: list[Change] = field(default_factory=list)
    _connections: set[socket.socket] = field(default_factory=set)
    _version: int = 100
    _oldest: int = 0
    _port: int = 0

    def __enter__(self) -> Self:
        self._changed = threading.Condition(threading.RLock())
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

    def put(self, collection: str, *objects: dict[str, Any]) -> None:
        """Keep objects; one of the same name replaces the older."""
        _, api_version, kind = COLLECTIONS[collection]
        for each in objects:
            with self._changed:
                self._version += 1
                metadata = {**each.get("metadata", {}), "resourceVersion": str(self._version)}
                kept = {"apiVersion": api_version, "kind": kind, **each, "metadata": metadata}
                key = metadata.get("namespace", ""), metadata["name"]
                self._change(collection, self._objects[collection].get(key), kept)
                self._objects[collection][key] = kept

    def delete(self, collection: str, namespace: str, name: str) -> None:
        """Let go of an object, if it is there."""
        with self._changed:
            old = self._objects[collection].pop((namespace, name), None)
            if old is not None:
                self._version += 1
                self._change(collection, old, None)

    def kept(self, collection: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Return all objects of a collection, by namespace and name."""
        with self._changed:
            return dict(self._objects[collection])

    def _change(self, collection: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self._changes.append(Change(self._version, collection, old, new))
        self._changed.notify_all()

    def compact(self) -> None:
        """Forget all changes up to now: a watch cannot go on from before. Open ones are not harmed."""
        with self._changed:
            self._oldest = self._version

    def set_back(self) -> None:
        """Put the server to a backup that is exactly as it is now, but for its version, which is that of long ago."""
        with self._changed:
            self._version = self._version // 2
            self._changes.clear()
            self._oldest = self._version

    def backup(self) -> Backup:
        """Return all that is kept now, and its version."""
        with self._changed:
            objects = {collection: dict(kept) for collection, kept in self._objects.items()}
            return Backup(self._version, objects)

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
        if (self.allows is not None and not self.allows(verb)) or not (self.allows_at or _anything)(path, asked):
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

    def _written(
        self, method: str, kind: str, path: str, collection: str, name: tuple[str, str] | None, sub: str, document: Any
    ) -> dict[str, Any]:
        if method == "POST":
            inside = re.search(r"/namespaces/([^/]+)/[^/]+$", path)
            metadata = {**document["metadata"], **({"namespace": unquote(inside[1])} if inside else {})}
            if document["metadata"].get("namespace", metadata.get("namespace")) != metadata.get("namespace"):
                raise RefusalError(400, "the namespace of the object does not match that of the request")
            key = metadata.get("namespace", ""), metadata.get("name", "")
            if key in self._objects[collection]:
                raise RefusalError(409, f'{collection} "{key[1]}" already exists')
            if "resourceVersion" in metadata:
                raise RefusalError(400, "resourceVersion should not be set on objects to be created")
            new = {**document, "metadata": {**metadata, "uid": f"uid-{self._version + 1}"}}
            check(collection, new)
        else:
            old = self._objects[collection].get(name) if name else None
            if old is None:
                raise RefusalError(404, f"{collection} {name} not found")
            wanted = patched(old, document, kind) if method == "PATCH" else document
            new = changed(old, wanted, sub)
            check(collection, new, old)
            if {**new, "metadata": {**new["metadata"], "resourceVersion": ""}} == {
                **old,
                "metadata": {**old["metadata"], "resourceVersion": ""},
            }:
                return old
        self.put(collection, new)
        return self._objects[collection][new["metadata"].get("namespace", ""), new["metadata"]["name"]]

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

    def _candidates(self, collection: str, path: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        """Return the objects that a path and a selector of a name leave, in order; quick for one name of many."""
        url = urlsplit(path)
        inside = re.search(r"/namespaces/([^/]+)/[^/]+$", url.path)
        named = re.fullmatch("metadata.name=(.+)", parse_qs(url.query).get("fieldSelector", [""])[0])
        objects = self._objects[collection]
        if inside and named:
            key = inside[1], named[1]
            return [(key, objects[key])] if key in objects else []
        return sorted(
            ((key, each) for key, each in objects.items() if not inside or key[0] == inside[1]),
            key=lambda each: each[0],
        )

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

    def _settled(self, collection: str, version: int) -> int:
        """Return the latest version up to which a watch that is at `version` has told all."""
        with self._changed:
            if any(each.collection == collection for each in self._since(version)):
                return version
            return self._version

    def _since(self, version: int) -> list[Change]:
        return self._changes[bisect_right(self._changes, version, key=lambda each: each.version) :]


def _anything(_path: str, _query: Mapping[str, str]) -> bool:
    return True


def selector(path: str) -> Callable[[dict[str, Any]], bool]:
    """Return what a request selects of its collection: a namespace, and by `labelSelector` and `fieldSelector`."""
    url = urlsplit(path)
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    terms = query.get("labelSelector", "").split(",")
    absent = [term[1:] for term in terms if term.startswith("!")]
    equal = [term.partition("=")[::2] for term in terms if "=" in term and not term.startswith("!")]
    fields = query.get("fieldSelector", "")
    inside = re.search(r"/namespaces/([^/]+)/[^/]+$", url.path)

    def selects(each: dict[str, Any]) -> bool:
        metadata = each["metadata"]
        return (
            not any(label in metadata.get("labels", {}) for label in absent)
            and all(metadata.get("labels", {}).get(label) == value for label, value in equal)
            and not ("spec.clusterIP!=None" in fields and each["spec"].get("clusterIP") == "None")
            and (not fields.startswith("metadata.name=") or metadata["name"] == fields.partition("=")[2])
            and (not inside or metadata.get("namespace") == inside[1])
        )

    return selects


def asked_for(path: str) -> tuple[str, tuple[str, str] | None]:
    """Return the collection that a path asks for, and the namespace and name of the one object of it, if it is one.

    >>> asked_for("/api/v1/namespaces/shop/secrets/tls"), asked_for("/api/v1/nodes/a"), asked_for("/api/v1/services")
    (('secrets', ('shop', 'tls')), ('nodes', ('', 'a')), ('services', None))
    """
    for collection, (root, *_) in COLLECTIONS.items():
        if path == root:
            return collection, None
        if path.startswith(f"{root}/"):
            return collection, ("", unquote(path.removeprefix(f"{root}/")))
        group, _, noun = root.rpartition("/")
        if re.fullmatch(rf"{re.escape(group)}/namespaces/[^/]+/{noun}", path):
            return collection, None
        inside = re.fullmatch(rf"{re.escape(group)}/namespaces/([^/]+)/{noun}/([^/]+)", path)
        if inside:
            return collection, (unquote(inside[1]), unquote(inside[2]))
    return "", None


def verb_of(handler: BaseHTTPRequestHandler) -> tuple[str, str, str]:
    """Return what a request does, as a role names it: verb, API group, resource with its subresource."""
    url = urlsplit(handler.path)
    is_status = url.path.endswith("/status")
    collection, name = asked_for(url.path.removesuffix("/status"))
    if not collection:
        return handler.command, "", url.path
    is_watch = parse_qs(url.query).get("watch", [""])[0] in {"1", "true"}
    reading = "get" if name else "watch" if is_watch else "list"
    verb = {"GET": reading, "POST": "create", "PUT": "update", "PATCH": "patch"}[handler.command]
    version = COLLECTIONS[collection][1]
    return verb, version.rpartition("/")[0], f"{collection}/status" if is_status else collection


def reply(handler: BaseHTTPRequestHandler, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Answer with JSON."""
    content = json.dumps(body).encode()
    handler.send_response(code)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def make_certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate for a name that vouches for itself, and return the files of it and of its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ("-subj", "/CN=fake", "-addext", f"subjectAltName={name}")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(("openssl", "req", "-x509", "-days", "2", *kind, *subject, *files), check=True, capture_output=True)
    return certificate, key
