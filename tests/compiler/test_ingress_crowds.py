"""Whatever valid things Ingresses ask for together, on hosts that they share, a real nginx takes all of it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from rulegen.kube.objects import structs as k
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    NAMED,
    WEB,
    backend,
    compiled,
    endpoints,
    ingress,
    path,
    refusal,
    rule,
    service,
    settings_map,
    tls,
)

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES: Final = (
    {
        "auth-url": ("http://web.default.svc/check", "https://auth.example.com/x?y=$host"),
        "auth-signin": ("https://sign.test/in?rd=$escaped_request_uri", "/in"),
        "auth-response-headers": ("X-User, X-Mail",),
        "auth-method": ("POST", "HEAD"),
        "auth-always-set-cookie": ("true",),
        "auth-proxy-set-headers": ("default/headers",),
        "auth-request-redirect": ("https://$host$request_uri",),
        "enable-global-auth": ("false", "true"),
    },
    {
        "auth-type": ("basic",),
        "auth-secret": ("users", "default/users", "gone"),
        "auth-realm": ("Closed area", 'a "b"'),
        "satisfy": ("any", "all"),
        "allowlist-source-range": ("10.0.0.0/8,2001:db8::/32",),
        "denylist-source-range": ("10.1.0.0/16",),
    },
    {
        "auth-tls-secret": ("default/ca", "default/gone"),
        "auth-tls-verify-client": ("on", "optional", "optional_no_ca"),
        "auth-tls-match-cn": ("CN=abc.*",),
        "auth-tls-error-page": ("https://sign.test/err",),
        "auth-tls-pass-certificate-to-upstream": ("true",),
        "ssl-ciphers": ("HIGH:!aNULL",),
        "ssl-redirect": ("true", "false"),
    },
    {
        "enable-cors": ("true",),
        "cors-allow-origin": ("*", "https://a.test:8443, https://*.b.test"),
        "cors-allow-methods": ("GET, PUT",),
        "cors-allow-credentials": ("true", "false"),
    },
    {
        "affinity": ("cookie",),
        "affinity-mode": ("balanced", "persistent"),
        "session-cookie-name": ("route",),
        "session-cookie-path": ("/", "/a"),
        "session-cookie-samesite": ("None", "Lax"),
    },
    {"use-regex": ("true",), "rewrite-target": ("/", "/$1", "/new/$2?x=1"), "x-forwarded-prefix": ("/p",)},
    {
        "custom-http-errors": ("404,503", "401"),
        "default-backend": ("api", "web", "gone"),
        "disable-proxy-intercept-errors": ("true",),
    },
    {"limit-rps": ("7",), "limit-rpm": ("50",), "limit-connections": ("5",), "limit-allowlist": ("10.0.0.0/8",)},
    {
        "backend-protocol": ("HTTP", "HTTPS", "AUTO_HTTP", "GRPC", "GRPCS", "FCGI"),
        "proxy-ssl-secret": ("default/upstream",),
        "proxy-ssl-verify": ("on", "off"),
        "proxy-ssl-name": ("inner.test",),
        "fastcgi-index": ("index.php",),
        "fastcgi-params-configmap": ("parameters",),
    },
    {"canary": ("true",), "canary-weight": ("20",), "canary-by-header": ("X-Can",), "canary-by-cookie": ("can",)},
    {
        "permanent-redirect": ("https://new.test$request_uri",),
        "from-to-www-redirect": ("true",),
        "server-alias": ("alias.test, *.wild.test",),
        "app-root": ("/ui",),
    },
    {
        "load-balance": ("ewma", "least_conn", "ip_hash"),
        "upstream-hash-by": ("$request_uri", "$http_x_a-$remote_addr"),
        "service-upstream": ("true",),
        "upstream-vhost": ("inner.test", "$host"),
        "proxy-http-version": ("1.0", "1.1"),
        "proxy-next-upstream": ("error timeout http_502", "off"),
    },
    {
        "proxy-buffering": ("on", "off"),
        "proxy-buffer-size": ("8k", "64k"),
        "proxy-redirect-from": ("http://x.test/", "default"),
        "proxy-redirect-to": ("/y/",),
        "proxy-cookie-path": ("/one/ /",),
        "proxy-cookie-domain": ("a.test b.test",),
        "proxy-body-size": ("8m", "0"),
        "custom-headers": ("default/headers",),
    },
)
"""Annotations that mean something together, each with valid values."""

SETTINGS: Final = {
    "block_cidrs": ("10.9.0.0/16,::1",),
    "block_user_agents": ("~*bot,curl",),
    "compute_full_forwarded_for": ("true",),
    "custom_http_errors": ("404,500,503",),
    "disable_ipv6": ("true",),
    "enable_real_ip": ("true",),
    "force_ssl_redirect": ("true",),
    "forwarded_for_header": ("X-Real",),
    "generate_request_id": ("false",),
    "global_auth_url": ("http://api.default.svc/all", "https://auth.example.com/g"),
    "global_auth_signin": ("https://g.test/in",),
    "hsts": ("false",),
    "load_balance": ("ewma", "ip_hash"),
    "no_auth_locations": ("/health,/ok",),
    "proxy_set_headers": ("default/headers",),
    "reuse_port": ("false",),
    "service_upstream": ("true",),
    "ssl_reject_handshake": ("true",),
    "upstream_keepalive_connections": ("0",),
    "use_forwarded_headers": ("true",),
    "use_gzip": ("true",),
    "use_http2": ("false",),
    "use_port_in_redirects": ("true",),
    "use_proxy_protocol": ("true",),
}
HOSTS: Final = ("", "a.test", "www.a.test", "b.test", "alias.test", "x.wild.test", "*.wild.test", "*.a.test")
PATHS: Final = ("/", "/a", "/a/", "/a/b", "/api(/|$)(.*)", "/x y", "/ü", "/a%2Fb", "/foo.bar", "/in", "/health")
KINDS: Final = ("Prefix", "Exact", "ImplementationSpecific")
GROUND: Final = (
    *(*WEB, *API, *NAMED),
    service("ext", type="ExternalName", cluster_ip="", external_name="example.com"),
    service("web", namespace="other"),
    endpoints("web", ("10.244.9.9",), namespace="other"),
)


def drawn(chance: random.Random, number: int) -> k.Ingress:
    """Return an Ingress that asks for things of a few families, on hosts that others ask for too."""
    families = chance.sample(FAMILIES, chance.choice((0, 1, 2, 4)))
    result = {
        name: chance.choice(texts) for reported in families for name, texts in reported.items() if chance.random() < 0.7
    }
    rules = [
        rule(
            chance.choice(HOSTS),
            *(
                path(chance.choice(PATHS), chance.choice(KINDS), chance.choice(("web", "api", "gone", "ext")))
                for _ in range(chance.choice((1, 1, 2, 3)))
            ),
        )
        for _ in range(chance.choice((1, 1, 2)))
    ]
    return ingress(
        f"i{number}",
        *rules,
        annotations=result,
        namespace=chance.choice(("default", "default", "other")),
        created=f"2026-01-{1 + number:02}T00:00:00Z",
        tls=[tls(chance.choice(("cert", "gone")), *chance.sample(HOSTS[1:5], 2))] if chance.random() < 0.3 else (),
        default=backend("api") if chance.random() < 0.1 else None,
    )


@needs_nginx
@pytest.mark.parametrize("seed", range(24))
def test_valid_ingresses_in_company_are_all_taken(seed: int, tmp_path: Path):
    chance = random.Random(seed)
    crowd = [drawn(chance, number) for number in range(chance.choice((2, 5, 15)))]
    settings = {
        name: chance.choice(SETTINGS[name]) for name in chance.sample(sorted(SETTINGS), chance.choice((0, 2, 6)))
    }
    result = compiled(*GROUND, *crowd, settings_map(**settings))
    assert refusal(result.configuration, tmp_path / "nginx") == ""
