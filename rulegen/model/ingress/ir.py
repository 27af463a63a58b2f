"""The L7 model (IR): what is answered for every host and path, with every decision taken.

A *server* answers to the names of a host, a *location* is a set of its paths, an *upstream* the servers that a location
passes requests to. The backend of each ingress engine reads this and writes it in the engine's words; it never looks at
an Ingress, an annotation or a Secret.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.proxying import AS_FOR_ALL, Proxying
from rulegen.model.ingress.values.texts import NO_TEXT, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.proxying import ProxySSL
    from rulegen.model.ingress.reasons import Reason
    from rulegen.model.ingress.values.readers import Url
    from rulegen.net import Network


class Balance(enum.StrEnum):
    """How an upstream picks a server."""

    ROUND_ROBIN = "round robin"
    LEAST_CONNECTIONS = "least connections"
    BETTER_OF_TWO = "the less busy of two chosen at random"
    CLIENT_ADDRESS = "hash of the client's address"
    HASH = "consistent hash of a key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Servers that requests are passed to.

    Attributes:
        name: Unique: `namespace.service.port`, and what makes it differ from others of the same port.
        service: The Service that it is of.
        servers: `address:port` of each, sorted.
        backup: Who is asked when none of them answers: the Service's own address; empty for nobody.
        hash_key: For HASH: text with variables.
        sticky: For HASH: the cookie that holds the key, instead of `hash_key`.
        keepalive: Idle connections that each worker keeps; 0 for none.
        host: The host that alone uses it, where its key is the host's (empty for every other name); None for any.
    """

    name: str
    service: ObjectName
    servers: tuple[str, ...]
    backup: str = ""
    balance: Balance = Balance.ROUND_ROBIN
    hash_key: Text = NO_TEXT
    sticky: Sticky | None = None
    keepalive: int = 0
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    """A cookie that keeps a client with its server.

    Attributes:
        cookie: Its name.
        attributes: What stands behind its value, and its path.
        path: Where it is sent; empty for the path that it was set for, as one Service's cookie is not another's.
        is_secure: Whether it is sent over HTTPS only; None if it is if it was set over that.
        is_persistent: Whether the cookie names the server, so that none but its own end moves a client; else it is a
            key, and a few clients move whenever servers come or go.
    """

    cookie: str
    attributes: str
    path: str = ""
    is_secure: bool | None = None
    is_persistent: bool = False


class ToUpstream(NamedTuple):
    """Requests are passed to an upstream, whose name this is."""

    upstream: str


class ToName(NamedTuple):
    """Requests go to a name that the engine resolves while it serves; `key` names Service and port, for logs."""

    host: str
    port: int
    key: str


class FixedResponse(NamedTuple):
    """The engine itself answers requests."""

    status: int


Target = ToUpstream | ToName | FixedResponse


class MatchKind(enum.Enum):
    """How a path of a location is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "expression that ignores case"
    REGEX_CASED = "expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A share of the requests that goes elsewhere; of header, cookie and weight the first that decides.

    Attributes:
        target: The upstream's name.
        ingress: The Ingress that requests it.
        header: Name; empty for none.
        header_value: Exact value that selects the canary; empty for `always` and `never`.
        header_pattern: Regular expression that selects it; an empty one for none.
        is_header_unreadable: Whether nobody knows what the header must be: who sends it is none of the canary's.
        cookie: Name; its value `always` selects the canary, `never` does not; empty for none.
        share: Percent of the other requests, with two decimals.
    """

    target: str
    ingress: ObjectName
    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    is_header_unreadable: bool = False
    cookie: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuth:
    """A password is requested; `file` is the path of the password file in the configuration."""

    realm: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAuth:
    """Another server is asked about every request.

    Attributes:
        url: Where; may hold variables that were allowed.
        target: The upstream that answers, where the URL names a Service; else the engine resolves the name.
        method: Of the question; empty for that of the request.
        signin: Where a client is sent that may not pass, with a way back; empty for nowhere.
        response_headers: Of the answer, passed on to the backend.
        request_redirect: What the answerer is told as the URL to come back to; empty for the request's own.
        set_headers: Headers that the answerer is sent.
    """

    url: Url
    target: str = ""
    method: str = ""
    signin: Text = NO_TEXT
    response_headers: tuple[str, ...] = ()
    request_redirect: Text = NO_TEXT
    always_set_cookie: bool = False
    set_headers: tuple[tuple[str, Text], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Cross-origin requests that are allowed (Fetch standard).

    Attributes:
        origins: Exact origins; one with `*.` in its host stands for one label.
        any_origin: Every origin; the answer is `*`.
    """

    origins: tuple[str, ...]
    any_origin: bool
    methods: str
    headers: str
    credentials: bool
    max_age_s: int
    expose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may do; 0 is no limit.

    Attributes:
        rps, rpm: Requests each second, each minute.
        rate, rate_after: KiB each second of an answer, after how many KiB; None if what holds for all does.
        burst_multiplier: How many seconds' worth may come at once.
        exempt: Who is not limited.
    """

    rps: int = 0
    rpm: int = 0
    connections: int = 0
    rate: int | None = None
    rate_after: int | None = None
    burst_multiplier: int = 5
    exempt: tuple[Network, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether anything is limited."""
        return bool(self.rps or self.rpm or self.connections) or self.rate is not None or self.rate_after is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPages:
    """Answers with these codes are replaced by those of another backend.

    Attributes:
        codes: Status codes.
        target: The other backend.
        service, port: The Service and port that the request was for.
        of_backends: Whether answers of backends are replaced too, not only those of the engine itself.
        passes_body: Whether the other backend gets the body of the request.
    """

    codes: tuple[int, ...]
    target: Target
    service: str
    port: str
    of_backends: bool = True
    passes_body: bool = True


class ServiceWithoutEndpoints(NamedTuple):
    """A Service that cannot answer, so that the default backend of its Ingress does; its name and port."""

    name: str
    port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationPolicy:
    """All that an Ingress says about its requests beside where they go.

    A field with None leaves it to what holds for all.

    Attributes:
        is_closed: Nothing is passed on: 503.
        proxying: How requests are passed on.
        unproven_headers: Headers that only an auth server may set, where no auth server is asked: what a client
            sends in them is not passed on.
        stands_in_for: The Service in whose place the default backend of the Ingress answers.
        scripts: For FCGI: parameters by name.
        headers: Response headers to set.
    """

    is_closed: bool = False
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    preserve_trailing_slash: bool = False
    redirect: tuple[int, Text] | None = None
    relative_redirects: bool = False
    ports_in_redirects: bool | None = None
    rewrite_target: str = ""
    use_regex: bool = False
    app_root: str = ""
    basic_auth: BasicAuth | None = None
    external_auth: ExternalAuth | None = None
    global_auth: bool = True
    unproven_headers: tuple[str, ...] = ()
    satisfy_any: bool = False
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    limits: Limits = Limits()
    cors: Cors | None = None
    headers: tuple[tuple[str, str], ...] = ()
    upstream_vhost: Text = NO_TEXT
    forwarded_prefix: Text = NO_TEXT
    connection_header: str = ""
    protocol: str = "HTTP"
    proxying: Proxying = AS_FOR_ALL
    body_size: int | None = None
    body_buffer_size: int | None = None
    proxy_ssl: ProxySSL | None = None
    cookie_domain: tuple[str, str] | None = None
    cookie_path: tuple[str, str] | None = None
    redirect_rewrite: tuple[str, str] | None = None
    errors: ErrorPages | None = None
    stands_in_for: ServiceWithoutEndpoints | None = None
    scripts: Mapping[str, Text] = field(default_factory=lambda: MappingProxyType({}))
    script_index: str = ""
    access_log: bool = True
    rewrite_log: bool = False
    sticky: Sticky | None = None

    def redirects_to_https(self, *, has_tls: bool) -> bool:
        """Whether a request over HTTP is sent to HTTPS, on a host with TLS or without."""
        return self.force_ssl_redirect or (self.ssl_redirect and has_tls)


class Location(NamedTuple):
    """Paths of a host and what is done with them.

    Attributes:
        path: What is compared; for REGEX, which ignores case, and REGEX_CASED an expression.
        ingress: The Ingress that it comes from; None if nobody asked for it (a 404 in between).
        rule: Where in the Ingress, as `spec.rules[0].http.paths[1]`.
        source: The path as written in the Ingress.
    """

    kind: MatchKind
    path: str
    target: Target
    policy: LocationPolicy
    ingress: ObjectName | None = None
    rule: str = ""
    source: str = ""
    canaries: tuple[Canary, ...] = ()


class ClientCertificate(enum.Enum):
    """Whether clients must show a certificate, and what it must be."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    """One that is shown must be of the CA."""
    UNVERIFIED = "unverified"
    """One may be shown, of any CA; the backend judges it."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuth:
    """Clients show a certificate (mTLS).

    Attributes:
        ca: Path of the CA's file in the configuration; empty if there is none that can be used: then all is rejected.
        revoked: Path of the file with the CA's lists of revoked certificates; empty for none.
        certificate: Whether one must be shown.
        match: Regular expression for the subject; empty for any.
    """

    ca: str
    revoked: str = ""
    certificate: ClientCertificate = ClientCertificate.REQUIRED
    depth: int = 1
    match: str = ""
    error_page: Text = NO_TEXT
    pass_certificate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """All that is answered for a host.

    Attributes:
        host: The name, `*.name` for every name one label longer, or empty for every name that nobody else has.
        aliases: Other names.
        locations: In the order in which they are tried, where they are expressions.
        certificate: Path of certificate and key in the configuration; empty for the default one.
        has_tls: Whether an Ingress requests TLS for this host, though its certificate may be missing.
        rejects_tls: Whether no TLS is spoken, since its certificate could not be read yet.
        responder_port: The port of the OCSP responder that the engine asks about its certificate; 0 for none.
        redirects_from: Another name whose requests are sent to this one.
        ingresses: All Ingresses that it is made of, oldest first.
        limits: Ingresses whose clients are counted, for all their hosts: each Ingress is in one server.
        is_regex: Whether paths are expressions, which one Ingress makes of all.
    """

    host: str
    aliases: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    certificate: str = ""
    has_tls: bool = False
    rejects_tls: bool = False
    responder_port: int = 0
    client_auth: ClientAuth | None = None
    app_root: str = ""
    ciphers: str = ""
    prefer_server_ciphers: bool | None = None
    redirects_from: str = ""
    ingresses: tuple[ObjectName, ...] = ()
    limits: tuple[tuple[ObjectName, Limits], ...] = ()
    is_regex: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """A file that the model makes of a Secret."""

    content: bytes = field(repr=False)
    for_workers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressModel:
    """All decisions about HTTP on one node.

    Attributes:
        defaults: What holds for all hosts.
        servers: By host, in order of name; the one for every other name always there, under the empty name.
        upstreams: By name.
        secrets: Files by path, as the fields above name them.
        reasons: What users must be told, in order.
        resolvers: Name servers for names that are resolved while the engine serves.
        forbidden: What the engine connects to for no Ingress, and what no such name may lead to.
    """

    defaults: HttpDefaults
    servers: Mapping[str, Server]
    upstreams: Mapping[str, Upstream]
    secrets: Mapping[str, SecretFile] = field(default_factory=lambda: MappingProxyType({}))
    reasons: tuple[Reason, ...] = ()
    resolvers: tuple[str, ...] = ()
    forbidden: Forbidden = NOTHING
