"""What is needed to try features one by one: a cast of Services, scenarios of Ingresses, and a client that can do more.

Scenarios with the same settings for all hosts are served together, each with hosts of its own: one release, many tests.
"""

from __future__ import annotations

import datetime as dt
import functools
import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration.ingress import objects, spaces
from integration.ingress.asking import Asker, Reply
from integration.ingress.expectations import Facts, matches, wrongs
from integration.ingress.lab import PROGRAMS, PYTHON, IngressLab
from integration.ingress.objects import Document
from integration.lab.hosts import LabError

NODE_V6, CLIENT_V6 = "fd00:50::10", "fd00:50::100"
SECOND_CLIENT = "192.168.50.101"
DEAD, BLACK_HOLE = 9999, "10.244.66.1"
_DAY = dt.timedelta(days=1)
_TIMEOUT_S = 15


# -- certificates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A certificate, those that lead to it, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.key.private_bytes(*form)

    @property
    def der(self) -> bytes:
        """The certificate as it is sent."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def whole(self) -> bytes:
        """All, in one file."""
        more = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in self.chain)
        return self.pem + more + self.key_pem


@functools.cache
def pair(name: str, issuer: Pair | None = None, *, names: tuple[str, ...] = (), age_days: int = 1) -> Pair:
    """Return the certificate of a name, by an issuer or by itself; one made before comes again."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = dt.datetime.now(dt.UTC) - age_days * _DAY
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + 30 * _DAY)
        .add_extension(x509.BasicConstraints(ca=name.startswith("ca"), path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names]), False)
    made = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    if issuer is None or issuer.certificate.issuer == issuer.certificate.subject:
        return Pair(made, key)
    return Pair(made, key, (issuer.certificate, *issuer.chain))


def tls_secret(name: str, made: Pair, authority: Pair | None = None) -> Document:
    """Return a Secret with a certificate, and with a CA beside it."""
    data = {"tls.crt": made.pem, "tls.key": made.key_pem}
    if authority is not None:
        data["ca.crt"] = authority.pem
    return objects.secret(name, "kubernetes.io/tls", data)


def authority_secret(name: str, *made: Pair) -> Document:
    """Return a Secret with CAs alone."""
    return objects.secret(name, "Opaque", {"ca.crt": b"".join(certificate.pem for certificate in made)})


def site_secret(host: str) -> Document:
    """Return a Secret for a host, called as it."""
    return tls_secret(host, pair(host, names=(host,)))


# -- the cast ----------------------------------------------------------------------------------------------------------


def slice_of(service: str, number: int, port: int, *addresses: str) -> Document:
    """Return one of the EndpointSlices of a Service."""
    made = objects.endpoint_slice(service, addresses)
    made["metadata"]["name"] = f"{service}-{number}"
    made["ports"][0]["port"] = port
    return made


_CAST: Mapping[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "echo": ((8080, ("10.244.1.1", "10.244.1.2")),),
    "other": ((8080, ("10.244.2.1",)),),
    "third": ((8080, ("10.244.2.2",)),),
    "crowd": ((8080, tuple(f"10.244.3.{number}" for number in range(1, 6))),),
    "errors": ((8080, ("10.244.6.1",)),),
    "auth": ((9100, ("10.244.4.1",)),),
    "auth-large": ((9100, ("10.244.4.13",)),),
    "auth-too-large": ((9100, ("10.244.4.14",)),),
    "scripts": ((9101, ("10.244.4.2",)),),
    "calls": ((9102, ("10.244.4.3",)),),
    "safe-calls": ((9103, ("10.244.4.4",)),),
    "safe": ((8443, ("10.244.4.5",)),),
    "knowing": ((9104, ("10.244.4.6",)),),
    "knowing-name": ((9104, ("10.244.4.9",)),),
    "knowing-ca": ((9104, ("10.244.4.10",)),),
    "knowing-old": ((9104, ("10.244.4.11",)),),
    "mixed": ((8080, ("10.244.4.12",)),),
    "mirror": ((9106, ("10.244.4.7",)),),
    "hangs-up": ((9105, ("10.244.5.1",)), (8080, ("10.244.5.2",))),
    "half-dead": ((DEAD, ("10.244.5.3",)), (8080, ("10.244.5.4",))),
    "half-off": ((DEAD, ("10.244.5.12",)), (8080, ("10.244.5.13",))),
    "poisoned": ((8080, ("10.244.5.14", "10.244.5.15")),),
    "poisoned-too": ((8080, ("10.244.5.16", "10.244.5.17")),),
    "dead": ((DEAD, ("10.244.5.5", "10.244.5.6")),),
    "lost": ((8080, (BLACK_HOLE, "10.244.5.7")),),
    "half-broken": ((9107, ("10.244.5.8",)), (8080, ("10.244.5.9",))),
    "silent": ((9108, ("10.244.5.18",)),),
    "broken": ((9107, ("10.244.5.10", "10.244.5.11")),),
    "empty": (),
}


def cast() -> list[Document]:
    """Return the Services that all scenarios may use."""
    results: list[Document] = [objects.ingress_class()]
    for number, (name, slices) in enumerate(_CAST.items(), 1):
        results.append(objects.service(name, f"10.96.7.{number}"))
        results += [slice_of(name, index, port, *addresses) for index, (port, addresses) in enumerate(slices)]
    return results


def cluster_ip(service: str) -> str:
    """Return the address of a Service."""
    return f"10.96.7.{list(_CAST).index(service) + 1}"


def site(
    host: str,
    annotations: Mapping[str, str] | None = None,
    service: str = "echo",
    *,
    path: str = "/",
    path_type: str = "Prefix",
    secret: str = "",
    name: str = "",
    created: str = "2025-01-01T00:00:00Z",
    prefix: str = objects.PREFIX,
) -> Document:
    """Return an Ingress of one path, called as its host unless told."""
    made = objects.ingress(name or host, host, service, paths=(path,), created=created, secret=secret)
    made["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = path_type
    if annotations:
        made["metadata"]["annotations"] = {f"{prefix}/{key}": value for key, value in annotations.items()}
    return made


# -- asking ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question, and what must be answered; `want` is as in `expectations`, and more (see `Stage.judge`).

    Attributes:
        name: The server name of TLS; the host unless told.
        identity: Whose certificate is shown.
        before: What is sent on the connection before anything else.
        newest: The newest TLS that is offered.
    """

    host: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: bool = False
    name: str | None = None
    identity: Pair | None = None
    alpn: tuple[str, ...] = ()
    newest: str = ""
    ciphers: str = ""
    source: str = ""
    address: str = spaces.NODE
    port: int = 0
    before: bytes = b""
    times: int = 1
    at_once: bool = False
    want: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> bytes:
        """Return its bytes."""
        headers = {"Host": self.host, **self.headers}
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            headers.setdefault("Content-Length", str(len(self.body)))
        headers.setdefault("Connection", "close")
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Told(Reply):
    """A reply, and how TLS was spoken."""

    tls: tuple[str, str, str] = ("", "", "")

    @property
    def json(self) -> Any:
        """The body, read."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


class Client(Asker):
    """Asks with certificates, from other addresses, with other words before."""

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__(pid, spaces.NODE)
        self._folder = folder

    def ask_all(self, ask: Ask) -> list[Told]:
        """Ask as often as told."""
        if ask.at_once:
            return [asked.result() for asked in [self._threads.submit(self._try, ask) for _ in range(ask.times)]]
        return self._threads.submit(lambda: [self._try(ask) for _ in range(ask.times)]).result()

    def ask_one(self, ask: Ask) -> Told:
        """Ask once."""
        return self.ask_all(ask)[0]

    def open(self, ask: Ask) -> socket.socket:
        """Open a connection, with TLS where told."""
        return self._threads.submit(self._open, ask).result()

    def resumed(self, first: Ask, second: Ask) -> tuple[Told, bool]:
        """Ask twice, the second time with the TLS session of the first; tell too whether it was taken up."""
        return self._threads.submit(self._resumed, first, second).result()

    def _resumed(self, first: Ask, second: Ask) -> tuple[Told, bool]:
        context = self._context(first)
        session: ssl.SSLSession | None = None
        reported = Told(0, (), b"", 0)
        reused = False
        for ask in (first, second):
            name = ask.host if ask.name is None else ask.name
            plain = socket.create_connection((ask.address, ask.port or 443), _TIMEOUT_S)
            try:
                connection = context.wrap_socket(plain, server_hostname=name, session=session)
            except ssl.SSLError as error:
                plain.close()
                return Told(0, (), b"", 0, failure=str(error)), False
            with connection:
                connection.sendall(ask.wire())
                with http.client.HTTPResponse(connection) as response:
                    response.begin()
                    reported = Told(response.status, response.getheaders(), response.read(), 0)
                session, reused = connection.session, bool(connection.session_reused)
        return reported, reused

    def _try(self, ask: Ask) -> Told:
        start = time.monotonic()
        try:
            with self._open(ask) as connection:
                connection.sendall(ask.wire())
                response = http.client.HTTPResponse(connection, method=ask.method)
                with response:
                    response.begin()
                    body = response.read()
                    shown, tls = b"", ("", "", "")
                    if isinstance(connection, ssl.SSLSocket):
                        shown = connection.getpeercert(binary_form=True) or b""
                        cipher = connection.cipher() or ("",)
                        tls = (connection.version() or "", cipher[0], connection.selected_alpn_protocol() or "")
                    elapsed = time.monotonic() - start
                    return Told(response.status, response.getheaders(), body, elapsed, shown, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            return Told(0, (), b"", time.monotonic() - start, failure=f"{type(error).__name__}: {error}")

    def _open(self, ask: Ask) -> socket.socket:
        port = ask.port or (443 if ask.tls else 80)
        source = (ask.source, 0) if ask.source else None
        plain = socket.create_connection((ask.address, port), _TIMEOUT_S, source)
        try:
            if ask.before:
                plain.sendall(ask.before)
            if not ask.tls:
                return plain
            name = ask.host.partition(":")[0] if ask.name is None else ask.name
            return self._context(ask).wrap_socket(plain, server_hostname=name or None)
        except BaseException:
            plain.close()
            raise

    def _context(self, ask: Ask) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if ask.identity is not None:
            path = self._folder / f"identity-{ask.identity.certificate.serial_number}.pem"
            if not path.exists():
                path.write_bytes(ask.identity.whole)
            context.load_cert_chain(str(path))
        if ask.alpn:
            context.set_alpn_protocols(list(ask.alpn))
        if ask.newest:
            context.maximum_version = ssl.TLSVersion[ask.newest]
        if ask.ciphers:
            context.set_ciphers(ask.ciphers)
        return context


# -- scenarios ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """What scenarios have in common: settings for all hosts, flags, and objects beside the cast."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str | bool] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Objects of its own, what is asked, and what must be answered.

    Attributes:
        then: Looks closer, and tells what is wrong.
    """

    name: str
    world: World
    documents: tuple[Document, ...]
    asks: tuple[Ask, ...] = ()
    then: Callable[[Stage], object] | None = None


@dataclass
class Stage:
    """A lab that serves one world after the other."""

    lab: IngressLab
    client: Client
    output: str = ""
    _serving: tuple[str, str] = ("", "")
    facts: Facts | None = None

    def serve(self, world: World, scenarios: Iterable[Scenario]) -> None:
        """Make the node serve a world with all of its scenarios, unless it does."""
        node = self.lab.occupy(self.lab.node)
        current = node.outside() / "current"
        if self._serving == (world.name, str(current.readlink()) if current.is_symlink() else ""):
            return
        documents = [
            *cast(),
            *world.documents,
            *(document for scenario in scenarios for document in scenario.documents),
        ]
        namespace, name = objects.CONTROLLER_CONFIG.split("/")
        documents.append(objects.config_map(name, world.config, namespace))
        done = node.apply(documents, world.flags)
        self.output = done.stdout + done.stderr
        self._serving = (world.name, str(current.readlink()))
        self.facts = self.lab.facts(documents)

    def judge(self, ask: Ask) -> list[str]:
        """Ask, and return what is not as wanted.

        Beside the keys of `expectations`: `fails` (no answer at all), `json` (of a specialist), `judge_sees` (what the
        auth server saw), `body_has`, `size`, `seconds` (least and most), `tls` (version, cipher, protocol; parts of
        them), `certificate` (a Pair), `statuses` (all that there are).
        """
        want = dict(ask.want)
        replies = self.client.ask_all(ask)
        first = replies[0]
        checks: dict[str, Callable[[Any], object]] = {
            "fails": lambda _: first.status != 0,
            "json": lambda reported: [
                key for key, value in reported.items() if not matches(value, str(first.json.get(key)))
            ],
            "judge_sees": lambda reported: _not_seen(reported, first),
            "body_has": lambda reported: reported.encode() not in first.body,
            "size": lambda reported: len(first.body) != reported,
            "seconds": lambda reported: not reported[0] <= first.elapsed_s <= reported[1],
            "tls": lambda reported: not all(part in got for part, got in zip(reported, first.tls, strict=True)),
            "certificate": lambda reported: first.certificate != reported.der,
            "statuses": lambda reported: {reply.status for reply in replies} != set(reported),
            "cookie": lambda reported: [
                reply for reply in replies if not matches(reported, "|".join(reply.all("Set-Cookie")))
            ],
        }
        assert self.facts is not None
        wrong = [f"{key}: expected {want[key]!r}" for key, check in checks.items() if key in want and check(want[key])]
        wrong += wrongs({key: value for key, value in want.items() if key not in checks}, list(replies), self.facts)
        return [f"{fault}\n      {_shown(ask, replies)}" for fault in wrong]

    def log(self, last: str) -> list[str]:
        """Return the lines of the access log up to one with a text, which may come a little after the answer."""
        path = self.lab.node.outside() / "logs" / "access.log"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = path.read_text().splitlines() if path.exists() else []
            if any(last in line for line in lines):
                return lines
            time.sleep(0.02)
        raise LabError(f"no line of the access log has {last}")

    def errors(self) -> list[str]:
        """Return what nginx has complained of until now."""
        path = self.lab.node.outside() / "logs" / "error.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []


def _not_seen(reported: Mapping[str, Any], reply: Told) -> list[str]:
    """Return what the auth server did not see as told; it tells by a header that the backend gets."""
    shown = reply.seen_headers("X-Seen")
    if len(shown) != 1:
        return [f"X-Seen: {shown}"]
    seen = json.loads(shown[0])
    headers = {key.lower(): value for key, value in seen["headers"]}
    wrong = [
        f"{key} {seen[key]}" for key in ("method", "path") if key in reported and not matches(reported[key], seen[key])
    ]
    for key, value in reported.get("headers", {}).items():
        if not matches(value, headers.get(key.lower(), "(none)")):
            wrong.append(f"{key}: {headers.get(key.lower())}")
    return wrong + [key for key in reported.get("absent", ()) if key.lower() in headers]


def _shown(ask: Ask, replies: list[Told]) -> str:
    first = replies[0]
    said = f"{ask.method} {'https' if ask.tls else 'http'}://{ask.host}{ask.path} {dict(ask.headers)}"
    codes = [reply.status for reply in replies[:20]]
    got = f"{first.failure} {first.elapsed_s:.2f}s {list(first.headers)} {first.tls} {first.body[:1500]!r}"
    return f"{said} -> {codes} {got}"


def build(lab: IngressLab) -> Stage:
    """Prepare a lab: specialists among its pods, a black hole, a second client, and IPv6 between client and node."""
    authority, server = lab.folder / "specialists-ca.pem", lab.folder / "specialists.pem"
    authority.write_bytes(pair("ca").pem)
    server.write_bytes(pair("backend.internal", pair("ca"), names=("backend.internal",)).whole)
    for name, command in (
        ("pods", f"route add blackhole {BLACK_HOLE}/32 table local"),
        ("client", f"addr add {SECOND_CLIENT}/24 dev uplink"),
        ("client", f"addr add {CLIENT_V6}/64 dev uplink nodad"),
        ("node", f"addr add {NODE_V6}/64 dev eth0 nodad"),
    ):
        lab.hosts[name].run(["ip", *command.split()]).check()
    lab.hosts["pods"].popen([*PYTHON, str(PROGRAMS / "specialists.py"), str(authority), str(server)])
    client = Client(lab.hosts["client"].wire.pid, lab.folder)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.connect(9107, "10.244.0.1").close()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise LabError(f"the specialists do not listen ({sys.executable})") from None
            time.sleep(0.05)
        else:
            return Stage(lab, client)
