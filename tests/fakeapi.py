"""A small API server that really serves: paged LISTs and GETs over HTTP or HTTPS, with faults on demand.

It keeps objects as plain mappings, as `kubectl get -o json` prints them:

    with FakeApi() as api:
        api.put("services", {"metadata": {"namespace": "shop", "name": "web"}, "spec": {…}})
        api.fail("services", Fault.status(429, retry_after=0))
        read_cluster(api.kubeconfig(tmp_path))

It knows `limit` and `continue` (a token that it has forgotten is 410), label selectors of the form `!key`, and the
field selector `spec.clusterIP!=None`. What it was asked is in `requests`.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COLLECTIONS = {
    "services": ("/api/v1/services", "v1", "Service"),
    "nodes": ("/api/v1/nodes", "v1", "Node"),
    "endpointslices": ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    "ingresses": ("/apis/networking.k8s.io/v1/ingresses", "networking.k8s.io/v1", "Ingress"),
    "ingressclasses": ("/apis/networking.k8s.io/v1/ingressclasses", "networking.k8s.io/v1", "IngressClass"),
    "secrets": ("/api/v1/secrets", "v1", "Secret"),
    "configmaps": ("/api/v1/configmaps", "v1", "ConfigMap"),
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
    def hang_up(cls) -> Self:
        """Close the connection without a word."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.close_connection = True

        return cls(answer)


@dataclass
class FakeApi:
    """The server. A context manager; serves from its start to its end.

    Attributes:
        token: What clients must bring as bearer token; None lets all in.
        certificate: Certificate and key files for HTTPS; None is HTTP.
        knows_field_selectors: Whether it takes them; old servers refuse with 400.
        requests: Path and query of all requests, in order.
    """

    token: str | None = None
    certificate: tuple[Path, Path] | None = None
    knows_field_selectors: bool = True
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _version: int = 100

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"

            def do_GET(self) -> None:
                fake._get(self)

            def log_message(self, *_: object) -> None:
                """Say nothing: `requests` has it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing: clients hang up in the middle, which is tested."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

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
        for one in objects:
            self._version += 1
            metadata = {"resourceVersion": str(self._version), **one.get("metadata", {})}
            kept = {"apiVersion": api_version, "kind": kind, **one, "metadata": metadata}
            self._objects[collection][metadata.get("namespace", ""), metadata["name"]] = kept

    def fail(self, collection: str, *faults: Fault | None) -> None:
        """Answer the next requests for a collection with these faults, one each; None answers as it should."""
        self._faults[collection].extend(fault or Fault(self._serve) for fault in faults)

    def forget_pages(self) -> None:
        """Forget all continue tokens that are out, as a real server does after five minutes."""
        self._lists.clear()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        self.requests.append((url.path, {key: values[0] for key, values in parse_qs(url.query).items()}))
        collection, _ = asked_for(url.path)
        if self._faults[collection]:
            self._faults[collection].popleft().answer(handler)
            return
        self._serve(handler)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path, query = urlsplit(handler.path).path, parse_qs(urlsplit(handler.path).query)
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            Fault.status(401, "Unauthorized").answer(handler)
            return
        collection, name = asked_for(path)
        if not collection:
            Fault.status(404, "the server could not find the requested resource").answer(handler)
        elif name is None:
            _, api_version, kind = COLLECTIONS[collection]
            self._list(handler, collection, api_version, kind, {key: values[0] for key, values in query.items()})
        elif one := self._objects[collection].get(name):
            reply(handler, 200, one)
        else:
            Fault.status(404, f'{collection} "{name[1]}" not found').answer(handler)

    def _list(
        self, handler: BaseHTTPRequestHandler, collection: str, api_version: str, kind: str, query: dict[str, str]
    ) -> None:
        if "fieldSelector" in query and not self.knows_field_selectors:
            Fault.status(400, "field label not supported: spec.clusterIP").answer(handler)
            return
        token = query.get("continue")
        if token is not None and token not in self._lists:
            Fault.status(410, "The provided continue parameter is too old").answer(handler)
            return
        rest = self._lists.pop(token) if token else self._selected(collection, query)
        limit = int(query.get("limit", "0")) or len(rest)
        metadata = {"resourceVersion": str(self._version)}
        if rest[limit:]:
            metadata["continue"] = f"token-{len(self.requests)}"
            metadata["remainingItemCount"] = str(len(rest) - limit)
            self._lists[metadata["continue"]] = rest[limit:]
        page = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata, "items": rest[:limit]}
        reply(handler, 200, page)

    def _selected(self, collection: str, query: dict[str, str]) -> list[dict[str, Any]]:
        absent = [term[1:] for term in query.get("labelSelector", "").split(",") if term.startswith("!")]
        found = []
        for _, one in sorted(self._objects[collection].items()):
            labels = one["metadata"].get("labels", {})
            if any(label in labels for label in absent):
                continue
            if "spec.clusterIP!=None" in query.get("fieldSelector", "") and one["spec"].get("clusterIP") == "None":
                continue
            found.append({key: value for key, value in one.items() if key not in {"kind", "apiVersion"}})
        return found


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
        inside = re.fullmatch(rf"{re.escape(group)}/namespaces/([^/]+)/{noun}/([^/]+)", path)
        if inside:
            return collection, (unquote(inside[1]), unquote(inside[2]))
    return "", None


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


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that vouches for itself, and return the files of it and of its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ("-subj", "/CN=fake", "-addext", "subjectAltName=IP:127.0.0.1")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(("openssl", "req", "-x509", "-days", "2", *kind, *subject, *files), check=True, capture_output=True)
    return certificate, key
