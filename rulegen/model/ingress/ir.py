"""The Ingress model (IR): the response to each path of each host, with all decisions made.

A *server* serves the names of a host. A *location* is a set of its paths. An *upstream* is a group of backend servers
to which a location passes requests. The backend of an ingress engine translates this model to the engine's
configuration. It reads no Ingress, annotation or Secret.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.proxying import AS_FOR_ALL, NO_OPTIONS, Proxying, ServerOptions
from rulegen.model.ingress.values.texts import NO_TEXT, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.proxying import AuthCache, Keepalive, ProxySSL
    from rulegen.model.ingress.reasons import Reason
    from rulegen.model.ingress.values.readers import Url
    from rulegen.net import Network


class Balance(enum.StrEnum):
    """Load balancing method of an upstream."""

    ROUND_ROBIN = "round robin"
    LEAST_CONNECTIONS = "least connections"
    BETTER_OF_TWO = "the less busy of two chosen at random"
    CLIENT_ADDRESS = "hash of the client's address"
    HASH = "consistent hash of a key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A group of backend servers.

    Attributes:
        name: Unique name: `namespace.service.port`, and a suffix if there are several upstreams for one port.
        service: Its Service.
        servers: `address:port` of each server, sorted.
        backup: `address:port` of the Service's ClusterIP, used if no server responds; empty for none.
        hash_key: For HASH: text with variables.
        sticky: For HASH: the cookie that contains the key, instead of `hash_key`.
        keepalive: Number of idle connections that each worker keeps; 0 for none.
        kept: How long those of an Ingress' own wish are kept; None for the settings.
        host: The only host that uses it, if its key depends on the host (empty for the default server); None for any.
    """

    name: str
    service: ObjectName
    servers: tuple[str, ...]
    backup: str = ""
    balance: Balance = Balance.ROUND_ROBIN
    hash_key: Text = NO_TEXT
    sticky: Sticky | None = None
    keepalive: int = 0
    kept: Keepalive | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    """A cookie that keeps a client at its server.

    Attributes:
        cookie: Name of the cookie.
        attributes: Attributes of the cookie, without its path.
        path: Path of the cookie; empty for the path of the Ingress, so that each Service has a cookie of its own.
        is_secure: Whether it is sent over HTTPS only; None if that depends on the protocol that it was set over.
        is_persistent: Whether the cookie names the server, so that a client moves only when this server ends. Otherwise
            it is a hash key, and some clients move whenever servers are added or removed.
        is_none_conditional: Whether it has the attribute `SameSite=None`, but not for browsers that reject that.
    """

    cookie: str
    attributes: str
    path: str = ""
    is_secure: bool | None = None
    is_persistent: bool = False
    is_none_conditional: bool = False


class ToUpstream(NamedTuple):
    """Requests are passed to the upstream of this name."""

    upstream: str


class ToName(NamedTuple):
    """Requests are passed to a DNS name that the engine resolves at run time; `key` names Service and port in logs."""

    host: str
    port: int
    key: str


class FixedResponse(NamedTuple):
    """The engine itself responds with this status."""

    status: int


Target = ToUpstream | ToName | FixedResponse


class MatchKind(enum.Enum):
    """How the path of a location is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "expression that ignores case"
    REGEX_CASED = "expression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A canary backend, which gets a part of the requests. Header, cookie and weight are checked in this order.

    Attributes:
        target: Its upstream, or a name that the engine resolves.
        ingress: Its Ingress.
        header: Name of the header; empty for none.
        header_value: Value of the header that selects the canary; if empty, `always` selects it, `never` excludes it.
        header_pattern: Regular expression for such a value; empty for none.
        is_header_unreadable: Whether the header's condition is invalid: requests with the header do not get the canary.
        cookie: Name of a cookie, which ignores case; its value `always` selects the canary, `never` excludes it; empty
            for none.
        share: Percentage of all other requests, with two decimal places.
    """

    target: ToUpstream | ToName
    ingress: ObjectName
    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    is_header_unreadable: bool = False
    cookie: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuth:
    """Basic authentication; `file` is the path of the password file in the configuration."""

    realm: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Each request is sent to another server too, whose answer nobody gets.

    Attributes:
        url: Where to; a URL without a path stands for that of the request.
        target: The upstream of the Service that it names; empty if the name is to be resolved.
        host: The header Host.
        passes_body: Whether the body of the request is sent as well.
    """

    url: Url
    target: str
    host: Text
    passes_body: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAuth:
    """External authentication: an auth server decides about each request.

    Attributes:
        url: URL of the auth server; it may contain variables.
        target: The upstream, if the URL names a Service; otherwise the engine resolves the host.
        method: Method of the auth request; empty for that of the client's request.
        signin: URL to which clients without access are redirected, with a parameter to return; empty for none.
        response_headers: Headers of the auth server's response that the backend gets.
        request_redirect: URL to return to, as sent to the auth server; empty for that of the request.
        set_headers: Additional headers of the auth request.
        cache: For which requests an answer holds that was given before; None for none.
    """

    url: Url
    target: str = ""
    method: str = ""
    signin: Text = NO_TEXT
    response_headers: tuple[str, ...] = ()
    request_redirect: Text = NO_TEXT
    always_set_cookie: bool = False
    set_headers: tuple[tuple[str, Text], ...] = ()
    cache: AuthCache | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Cross-origin requests that are allowed (Fetch standard).

    Attributes:
        origins: Allowed origins; `*.` at the start of the host matches one label.
        any_origin: Whether all origins are allowed; the response header is then `*`.
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
    """Limits for each client; 0 means no limit.

    Attributes:
        rps, rpm: Requests per second and per minute.
        rate, rate_after: KiB per second of a response, applied after so many KiB; None for the default.
        burst_multiplier: Requests of how many seconds (or minutes) may arrive at once.
        exempt: Clients without limits.
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
        """Whether there is any limit."""
        return bool(self.rps or self.rpm or self.connections) or self.rate is not None or self.rate_after is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPages:
    """Error pages: responses with these statuses are replaced by those of another backend.

    Attributes:
        codes: Status codes.
        target: The backend with the error pages.
        service, port: The Service and port of the failed request.
        of_backends: Whether responses of backends are replaced too, not only those of the engine itself.
        passes_body: Whether the error backend gets the body of the request.
    """

    codes: tuple[int, ...]
    target: Target
    service: str
    port: str
    of_backends: bool = True
    passes_body: bool = True


class ServiceWithoutEndpoints(NamedTuple):
    """Name and port of a Service without endpoints, which the default backend of its Ingress replaces."""

    name: str
    port: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationPolicy:
    """How the requests of an Ingress are served, without their target.

    None means the default of all hosts.

    Attributes:
        is_closed: Whether all requests are rejected with 503.
        proxying: Options of the connection to the backend.
        unproven_headers: Headers that only an auth server may set. They are removed from requests for which no auth
            server is asked.
        stands_in_for: The Service that the default backend of the Ingress replaces.
        scripts: FastCGI parameters by name.
        headers: Additional response headers.
        servers: What HAProxy does with each server.
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
    mirror: Mirror | None = None
    servers: ServerOptions = NO_OPTIONS

    def redirects_to_https(self, *, has_tls: bool) -> bool:
        """Whether requests over HTTP are redirected to HTTPS, on a host with or without TLS."""
        return self.force_ssl_redirect or (self.ssl_redirect and has_tls)


class Location(NamedTuple):
    """A set of paths of a host, and how their requests are served.

    Attributes:
        path: The compared path; an expression for REGEX (without case) and REGEX_CASED.
        ingress: Its Ingress; None for a location without one, such as a 404.
        rule: Its field in the Ingress, for example `spec.rules[0].http.paths[1]`.
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
    """Whether clients must present a certificate, and how it is verified."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    """A certificate is optional, but it must be issued by the CA."""
    UNVERIFIED = "unverified"
    """A certificate is optional and may be issued by any CA; the backend verifies it."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuth:
    """Verification of client certificates (mTLS).

    Attributes:
        ca: Path of the CA file in the configuration; if empty, no CA is usable and all requests are rejected.
        revoked: Path of the file with the CA's revocation lists; empty for none.
        certificate: Whether a certificate is required.
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
    """A host with all its locations.

    Attributes:
        host: The name; `*.name` for all names with one more label; empty for the default server.
        aliases: Additional names.
        locations: Locations; expressions are in the order of matching.
        certificate: Path of the file with certificate and key in the configuration; empty for the default certificate.
        has_tls: Whether an Ingress requests TLS for this host, even if its certificate is missing.
        rejects_tls: Whether TLS connections are rejected, because the certificate could not be read yet.
        responder_port: Port of the OCSP responder for its certificate; 0 for none.
        redirects_from: Another name, which is redirected to this host.
        ingresses: All its Ingresses, oldest first.
        limits: Ingresses with limits for each client. A limit counts all hosts of its Ingress and is defined in one
            server.
        is_regex: Whether all paths are expressions, which a single Ingress can cause.
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
    """A file with content from a Secret."""

    content: bytes = field(repr=False)
    for_workers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressModel:
    """All decisions about HTTP on one node.

    Attributes:
        defaults: Defaults of all hosts.
        servers: Servers by host, sorted; the default server always exists, with an empty name.
        upstreams: Upstreams by name.
        secrets: Files by path, to which the other objects refer.
        reasons: Reports for the user, sorted.
        resolvers: Name servers for names that the engine resolves at run time.
        forbidden: Addresses that the engine never connects to for an Ingress.
    """

    defaults: HttpDefaults
    servers: Mapping[str, Server]
    upstreams: Mapping[str, Upstream]
    secrets: Mapping[str, SecretFile] = field(default_factory=lambda: MappingProxyType({}))
    reasons: tuple[Reason, ...] = ()
    resolvers: tuple[str, ...] = ()
    forbidden: Forbidden = NOTHING
