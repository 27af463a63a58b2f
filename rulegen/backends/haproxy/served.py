"""How HAProxy applies each field of a policy, of a host and of the settings: as nginx does, or not.

Fields that it does not apply are reported. Where it protects, the paths or the host are closed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.obeyed import SETTINGS, Obeyed
from rulegen.model.ingress.ir import (
    BasicAuth,
    Canary,
    Cors,
    FixedResponse,
    Limits,
    LocationPolicy,
    Server,
    Sticky,
    ToUpstream,
    Upstream,
)
from rulegen.model.ingress.proxying import Proxying, ProxySSL, ServerOptions
from rulegen.model.ingress.values.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.model.ingress.ir import IngressModel, Location


_POLICY_NOT: Final = {
    "connection_header": (Obeyed.NOT, "HAProxy writes the header Connection itself"),
    "errors": (Obeyed.NOT, "HAProxy replaces no answers by those of a Service"),
    "rewrite_log": (Obeyed.NOT, "HAProxy logs no rewrites"),
}
_LIMITS_NOT: Final = frozenset({"rate", "rate_after"})
_SERVER_NOT: Final = {
    "rejects_tls": (Obeyed.CLOSES, "its certificate could not be read yet: the host is closed"),
    "responder_port": (Obeyed.NOT, "HAProxy asks no OCSP responder"),
    "prefer_server_ciphers": (Obeyed.NOT, "all hosts prefer the same ciphers with HAProxy"),
}
SETTINGS_NOT: Final = frozenset(name.replace("-", "_") for name, row in SETTINGS.items() if row.how is Obeyed.NOT)
"""Settings that have no effect with HAProxy; none of them protects anything."""


def _settings(how: Obeyed) -> str:
    return " ".join(name.replace("-", "_") for name, row in SETTINGS.items() if row.how is how)


_AS_NGINX: Final = (
    (LocationPolicy, "is_closed ssl_redirect force_ssl_redirect preserve_trailing_slash redirect relative_redirects"),
    (LocationPolicy, "rewrite_target use_regex app_root basic_auth global_auth unproven_headers satisfy_any"),
    (LocationPolicy, "allow deny cors headers upstream_vhost forwarded_prefix external_auth ports_in_redirects"),
    (LocationPolicy, "cookie_domain cookie_path redirect_rewrite stands_in_for scripts script_index servers"),
    (Proxying, "connect_timeout_s read_timeout_s"),
    (ServerOptions, "check_path check_interval_s slow_start_s max_connections retry_on"),
    (Limits, "rps rpm connections burst_multiplier exempt"),
    (Cors, "origins any_origin methods headers credentials max_age_s expose"),
    (BasicAuth, "realm file"),
    (ProxySSL, "certificate ca revoked verify name server_name"),
    (Sticky, "cookie attributes path is_secure"),
    (Canary, "target ingress header header_value header_pattern is_header_unreadable cookie share"),
    (Upstream, "name service servers backup balance sticky keepalive kept host"),
    (Server, "host aliases locations certificate has_tls ciphers app_root redirects_from ingresses limits is_regex"),
    (Settings, _settings(Obeyed.AS_NGINX)),
)
_OTHERWISE: Final = (
    (LocationPolicy, "limits body_size body_buffer_size proxying sticky proxy_ssl protocol access_log mirror"),
    (Proxying, "retry_on retry_tries retry_timeout_s send_timeout_s buffers_answers buffers_requests http_version"),
    (Proxying, "buffer_size buffers_number busy_buffers_size temporary_file_size"),
    (ProxySSL, "verify_depth ciphers protocols"),
    (Sticky, "is_persistent is_none_conditional"),
    (Upstream, "hash_key"),
    (Settings, _settings(Obeyed.OTHERWISE)),
    (Server, "client_auth"),
)
"""Fields that are applied differently, reported, or closed because HAProxy has no equivalent; see docs/ingress.md."""


def _declared(kind: type) -> dict[str, Obeyed]:
    table = {name: Obeyed.AS_NGINX for owner, names in _AS_NGINX if owner is kind for name in names.split()}
    table |= {name: Obeyed.OTHERWISE for owner, names in _OTHERWISE if owner is kind for name in names.split()}
    reported = {LocationPolicy: _POLICY_NOT, Server: _SERVER_NOT}.get(kind, {})
    unused = {Limits: _LIMITS_NOT, Settings: SETTINGS_NOT}.get(kind, frozenset())
    return table | {name: how for name, (how, _) in reported.items()} | dict.fromkeys(unused, Obeyed.NOT)


DECLARED: Final[Mapping[type, Mapping[str, Obeyed]]] = MappingProxyType(
    {kind: MappingProxyType(_declared(kind)) for kind, _ in _AS_NGINX}
)
"""How each field of these parts of the model is applied. No field has a default: a new one must be declared here."""

_DEFAULT_POLICY: Final = LocationPolicy()
_DEFAULT_SERVER: Final = Server(host="")


def disobeyed_by_path(policy: LocationPolicy) -> Iterator[tuple[Obeyed, str]]:
    """Yield a text for each value of a policy that HAProxy does not apply."""
    for name, (how, message) in _POLICY_NOT.items():
        if getattr(policy, name) != getattr(_DEFAULT_POLICY, name):
            yield how, message
    for name in sorted(_LIMITS_NOT):
        if getattr(policy.limits, name) != getattr(Limits(), name):
            yield Obeyed.NOT, "HAProxy 2.6 does not limit how fast an answer is sent"
            break
    if policy.proxy_ssl is not None and policy.proxy_ssl.verify:
        yield Obeyed.NOT, "HAProxy does not limit the length of the certificate chains of backends"


def body_limit(policy: LocationPolicy, settings: Settings) -> int:
    """Return the most bytes that the body of a request to these paths may have; 0 for any number."""
    return settings.proxy_body_size if policy.body_size is None else policy.body_size


def disobeyed_by_location(location: Location, model: IngressModel) -> Iterator[tuple[Obeyed, str]]:
    """Yield a text for each difference from nginx in how requests are passed on."""
    target, policy = location.target, location.policy
    if policy.redirect is not None or isinstance(target, FixedResponse):
        return
    sticky = model.upstreams[target.upstream].sticky if isinstance(target, ToUpstream) else None
    if sticky is not None and sticky.is_none_conditional:
        yield Obeyed.NOT, "with HAProxy, SameSite=None is also sent to browsers that reject it"
    if location.canaries and sticky is not None:
        yield Obeyed.NOT, "with HAProxy, a cookie for affinity does not keep a client at a canary, or away from it"
    if body_limit(policy, model.defaults.settings):
        if policy.protocol.startswith("GRPC"):
            yield Obeyed.NOT, "the limit on bodies has no effect with gRPC and HAProxy"
        else:
            yield Obeyed.OTHERWISE, "with HAProxy, a body whose length is not known beforehand is answered with 411"


def disobeyed_by_host(server: Server) -> Iterator[tuple[Obeyed, str]]:
    """Yield a text for each decision about a host that HAProxy does not apply."""
    for name, (how, message) in _SERVER_NOT.items():
        if getattr(server, name) != getattr(_DEFAULT_SERVER, name):
            yield how, message
    if server.client_auth is not None:
        yield Obeyed.NOT, "HAProxy does not limit the length of certificate chains of clients"


def disobeyed_settings(settings: Settings) -> Iterator[str]:
    """Yield the keys of the ConfigMap that are set and have no effect with HAProxy."""
    for name in sorted(SETTINGS_NOT):
        if getattr(settings, name) != getattr(Settings(), name):
            yield name.replace("_", "-")
