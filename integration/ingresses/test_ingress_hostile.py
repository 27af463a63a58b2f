"""Hostile values in every field and every annotation at once: what is served is served as specified, the rest is told.

All payloads in all annotations are thousands of hosts: a fifth of them is tried, and all with `RULEGEN_HOSTILE=all`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import objects
from integration.ingress.asking import Reply, Request
from integration.ingresses.test_ingress_malicious import FORBIDDEN

if TYPE_CHECKING:
    from pathlib import Path

    from integration.ingress.lab import IngressLab
    from integration.ingress.objects import Document

crossplane = pytest.importorskip("crossplane")
pytestmark = [pytest.mark.xdist_group("ingress-1"), pytest.mark.usefixtures("ingress_node")]

SHARES = 5

PAYLOADS = (
    "x; return 418;",
    'x"; return 418; "',
    "x'; return 418; '",
    "/x { return 418; } location /pwn",
    '/x" { return 418; } location "/pwn',
    "/x\\",
    '/x\\" { return 418; } #',
    "}\n}\nserver { listen 80; server_name pwn.test; location / { return 418; } }\n#",
    "a\r\nX-Evil: 1",
    "/\x00/../pwn",
    "\x7f\u2028\u0085",
    "$http_authorization",
    "/${request_body}",
    "http://a.test/$",
    "../../../../etc/passwd",
    "default/../../etc",
    "http://127.0.0.1:22/",
    "https://[::1]/",
    "http://169.254.169.254/latest",
    "on; ssl_engine /tmp/x.so",
    "include /etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
    "%s%n%00",
    "default",
    "include",
    "hostnames",
    "~(",
    "~*(a+)+$",
    "/(?{ system })(*ACCEPT)",
    "-1",
    "0",
    "1e9",
    "99999999999999999999",
    "100%",
    "0x10",
    "1_000",
    "\u0663",
    "\uff11\uff12",
    "",
    " ",
    "/" + "a" * 5000,
    "\u00e9" * 2100,
    "a," * 3000,
    "true\n",
    "*",
    "_",
    "10.0.0.0/33",
    "0.0.0.0/0 1; default 1",
)

_ANNOTATIONS = """
affinity affinity-canary-behavior affinity-mode allowlist-source-range app-root auth-always-set-cookie
auth-cache-duration auth-cache-key auth-keepalive auth-method auth-proxy-set-headers auth-realm auth-request-redirect
auth-response-headers auth-secret auth-secret-type auth-signin auth-signin-redirect-param auth-snippet
auth-tls-error-page auth-tls-match-cn auth-tls-pass-certificate-to-upstream auth-tls-secret auth-tls-verify-client
auth-tls-verify-depth auth-type auth-url backend-protocol canary canary-by-cookie canary-by-header
canary-by-header-pattern canary-by-header-value canary-weight canary-weight-total client-body-buffer-size
configuration-snippet connection-proxy-header cors-allow-credentials cors-allow-headers cors-allow-methods
cors-allow-origin cors-expose-headers cors-max-age custom-headers custom-http-errors default-backend
denylist-source-range enable-access-log enable-cors enable-global-auth enable-rewrite-log force-ssl-redirect
from-to-www-redirect http2-push-preload limit-burst-multiplier limit-connections limit-rate limit-rate-after limit-rpm
limit-rps limit-whitelist load-balance mirror-host mirror-request-body mirror-target permanent-redirect
permanent-redirect-code preserve-trailing-slash proxy-body-size proxy-buffer-size proxy-buffering proxy-buffers-number
proxy-busy-buffers-size proxy-connect-timeout proxy-cookie-domain proxy-cookie-path proxy-http-version
proxy-max-temp-file-size proxy-next-upstream proxy-next-upstream-timeout proxy-next-upstream-tries proxy-read-timeout
proxy-redirect-from proxy-redirect-to proxy-request-buffering proxy-send-timeout proxy-set-headers proxy-ssl-ciphers
proxy-ssl-name proxy-ssl-protocols proxy-ssl-secret proxy-ssl-server-name proxy-ssl-verify proxy-ssl-verify-depth
relative-redirects rewrite-target satisfy server-alias server-snippet service-upstream
session-cookie-change-on-failure session-cookie-conditional-samesite-none session-cookie-domain
session-cookie-expires session-cookie-max-age session-cookie-name session-cookie-path session-cookie-samesite
session-cookie-secure ssl-ciphers ssl-passthrough ssl-prefer-server-ciphers ssl-redirect stream-snippet
temporal-redirect temporal-redirect-code upstream-hash-by upstream-hash-by-subset upstream-vhost use-regex
whitelist-source-range x-forwarded-prefix
"""
ANNOTATIONS = tuple(_ANNOTATIONS.split())

# What gives an annotation a meaning where it has none alone.
COMPANIONS = {
    "affinity-": {"affinity": "cookie"},
    "auth-proxy-set-headers": {"auth-url": "http://backend.dns.test/"},
    "auth-re": {"auth-url": "http://backend.dns.test/"},
    "auth-signin": {"auth-url": "http://backend.dns.test/"},
    "auth-method": {"auth-url": "http://backend.dns.test/"},
    "auth-cache": {"auth-url": "http://backend.dns.test/"},
    "auth-tls-": {"auth-tls-secret": "default/ca"},
    "canary-": {"canary": "true"},
    "cors-": {"enable-cors": "true"},
    "limit-": {"limit-rps": "100"},
    "permanent-redirect-code": {"permanent-redirect": "http://a.test/"},
    "temporal-redirect-code": {"temporal-redirect": "http://a.test/"},
    "proxy-redirect-": {"proxy-redirect-from": "default", "proxy-redirect-to": "/"},
    "proxy-ssl-": {"backend-protocol": "HTTPS"},
    "session-cookie-": {"affinity": "cookie"},
    "x-forwarded-prefix": {"rewrite-target": "/"},
}

BASE = (
    objects.ingress_class(),
    objects.ingress("control", "ok.test"),
    objects.service("echo", "10.96.100.1"),
    objects.endpoint_slice("echo", ["10.244.100.1"]),
)


def host(number: int) -> str:
    return f"h{number}.evil.test"


def of_annotations() -> list[Document]:
    """Return an Ingress for each annotation with each payload, each with a host of its own."""
    results = []
    for number, (name, value) in enumerate(product(ANNOTATIONS, PAYLOADS)):
        around = next((more for prefix, more in COMPANIONS.items() if name.startswith(prefix)), {})
        results.append(objects.ingress(f"a{number}", host(number), annotations={**around, name: value}))
    return results


def of_fields() -> list[Document]:
    """Return Ingresses with each payload in each field of their spec and metadata."""
    results = []
    for number, value in enumerate(PAYLOADS):
        for place, change in enumerate(_CHANGES):
            entry = objects.ingress(f"f{number}-{place}", host(number * 100 + place))
            change(entry, value)
            results.append(entry)
    return results


def _path(entry: Document) -> dict[str, Any]:
    path: dict[str, Any] = entry["spec"]["rules"][0]["http"]["paths"][0]
    return path


_CHANGES = (
    lambda entry, value: _path(entry).update(path=value, pathType="Prefix"),
    lambda entry, value: _path(entry).update(path="/" + value, pathType="Exact"),
    lambda entry, value: _path(entry).update(path="/" + value, pathType="ImplementationSpecific"),
    lambda entry, value: (
        _path(entry).update(path="/" + value, pathType="ImplementationSpecific"),
        entry["metadata"].update(annotations={f"{objects.PREFIX}/use-regex": "true"}),
    ),
    lambda entry, value: _path(entry).update(pathType=value),
    lambda entry, value: _path(entry)["backend"]["service"].update(name=value),
    lambda entry, value: _path(entry)["backend"]["service"].update(port={"name": value}),
    lambda entry, value: _path(entry).update(backend={"resource": {"kind": value, "name": value, "apiGroup": value}}),
    lambda entry, value: entry["spec"]["rules"][0].update(host=value),
    lambda entry, value: entry["spec"]["rules"][0].update(host="*." + value),
    lambda entry, value: entry["spec"].update(ingressClassName=value),
    lambda entry, value: entry["spec"].update(tls=[{"hosts": [value], "secretName": "x"}]),
    lambda entry, value: entry["spec"].update(tls=[{"hosts": ["a.evil.test"], "secretName": value}]),
    lambda entry, value: entry["spec"].update(defaultBackend={"service": {"name": value, "port": {"name": value}}}),
    lambda entry, value: entry["metadata"].update(name=value),
    lambda entry, value: entry["metadata"].update(namespace=value),
    lambda entry, value: entry["metadata"].update(uid=value),
    lambda entry, value: entry["metadata"].update(creationTimestamp=value),
    lambda entry, value: entry["metadata"].update(labels={value: value}),
    lambda entry, value: entry["metadata"].update(annotations={f"{objects.PREFIX}/{value}": value}),
    lambda entry, value: entry["metadata"].update(annotations={"kubernetes.io/ingress.class": value}),
)


_SETTINGS = """
access-log-path add-headers allow-backend-server-header allowed-annotation block-cidrs block-referers block-user-agents
client-body-buffer-size client-body-timeout client-header-buffer-size client-header-timeout compute-full-forwarded-for
custom-http-errors default-type denylist-source-range disable-access-log enable-brotli enable-real-ip
enable-underscores-in-headers error-log-level forwarded-for-header generate-request-id global-auth-url gzip-level
gzip-min-length gzip-types hide-headers hsts hsts-include-subdomains hsts-max-age hsts-preload http-redirect-code
http-snippet http2-max-concurrent-streams ignore-invalid-headers keep-alive keep-alive-requests
large-client-header-buffers limit-conn-status-code limit-rate limit-req-status-code load-balance log-format-escape-json
log-format-escape-none log-format-upstream main-snippet map-hash-bucket-size max-worker-connections
no-auth-locations no-tls-redirect-locations proxy-add-original-uri-header proxy-body-size proxy-buffer-size
proxy-buffering proxy-buffers-number proxy-busy-buffers-size proxy-connect-timeout proxy-cookie-domain
proxy-headers-hash-bucket-size proxy-http-version proxy-next-upstream proxy-next-upstream-tries
proxy-protocol-header-timeout proxy-read-timeout proxy-real-ip-cidr proxy-redirect-from proxy-request-buffering
proxy-set-headers
relative-redirects retry-non-idempotent server-name-hash-bucket-size server-name-hash-max-size server-snippet
server-tokens skip-access-log-urls ssl-buffer-size ssl-ciphers ssl-dh-param ssl-early-data ssl-ecdh-curve
ssl-prefer-server-ciphers ssl-protocols ssl-redirect ssl-reject-handshake ssl-session-cache ssl-session-cache-size
ssl-session-ticket-key ssl-session-tickets ssl-session-timeout strict-validate-path-type upstream-keepalive-connections
upstream-keepalive-requests upstream-keepalive-time upstream-keepalive-timeout use-forwarded-headers use-geoip2 use-gzip
use-http2 use-proxy-protocol variables-hash-bucket-size whitelist-source-range worker-cpu-affinity worker-processes
worker-shutdown-timeout
"""
SETTINGS = tuple(_SETTINGS.split())
# What keeps somebody out, and closes all Ingresses where it cannot be used.
_GUARDS = re.compile(
    r"use-proxy-protocol|whitelist-source-range|denylist-source-range|block-.*|.*real-ip.*|global-auth-url|.*-snippet"
)


def _served(lab: IngressLab, documents: list[Document], folder: Path) -> tuple[str, list[str]]:
    """Apply a world with the control host; return what was printed and what is wrong with what is served."""
    done = lab.node.apply([*BASE, *documents])
    said = done.stdout + done.stderr
    wrong = [f"prints {match!r}" for match in re.findall(r"[^\n -\ufffd]{1,20}", said)[:3]]
    if "quarantine" in said.lower():
        wrong += [line[:300] for line in said.splitlines() if "quarantine" in line.lower()][:20]
    if lab.client.ask(Request(host="ok.test")).status != 200:
        wrong.append("the control host does not answer")
    lab.node.run("export", "--nginx", str(folder)).check()
    for name in ("run", "logs"):
        (folder / name).mkdir(exist_ok=True)
    tested = lab.node.host.run(["nginx", "-t", "-p", f"{folder}/", "-c", str(folder / "nginx.conf")])
    wrong += [f"nginx -t: {tested.stderr[-500:]}"] if tested.code else []
    parsed = crossplane.parse(str(folder / "nginx.conf"))
    wrong += [str(error)[:300] for error in parsed["errors"]]
    for file in parsed["config"]:
        wrong += _forbidden(file["parsed"])
    return said, wrong


def _forbidden(block: list[dict[str, Any]]) -> Iterator[str]:
    for directive in block:
        name, arguments = directive["directive"], directive["args"]
        text = f"{name} {arguments}"[:300]
        if FORBIDDEN.fullmatch(name) or (name == "return" and arguments[:1] == ["418"]):
            yield text
        if name == "server_name" and "pwn.test" in arguments:
            yield text
        if name == "server" and arguments and not re.match(r"10\.(?:244|96)\.100\.1:", arguments[0]):
            yield text
        if name == "include" and not re.match(
            r"(?:hosts|upstreams)/|mime\.types", arguments[0].rsplit("/", 2)[-2] + "/"
        ):
            yield text
        yield from _forbidden(directive.get("block") or [])


def _odd(reply: Reply, what: str, lab: IngressLab) -> list[str]:
    """Return what is odd about a reply, whatever is served."""
    odd = reply.status in {0, 418, 500} or reply.all("X-Evil") or "passwd" in str(reply.headers)
    if reply.seen and lab.facts(list(BASE)).owner(reply) != ("default", "echo"):
        odd = True
    return [f"{what}: {reply.status} {reply.failure} {reply.headers}"[:400]] if odd else []


@pytest.mark.parametrize("share", range(SHARES if os.environ.get("RULEGEN_HOSTILE") == "all" else 1))
def test_no_annotation_says_more_than_it_may(ingress_lab: IngressLab, share: int) -> None:
    documents = of_annotations()[share::SHARES]
    _, wrong = _served(ingress_lab, documents, ingress_lab.folder / f"hostile-{share}")
    for document in documents:
        name = document["spec"]["rules"][0]["host"]
        (annotation, value) = list(document["metadata"]["annotations"].items())[-1]
        for target in ("/", "/pwn"):
            reply = ingress_lab.client.ask(Request(host=name, target=target))
            wrong += _odd(reply, f"{annotation}={value[:60]!r} {target}", ingress_lab)
    assert not wrong, "\n".join(wrong[:40])


def test_no_field_says_more_than_it_may(ingress_lab: IngressLab) -> None:
    documents = of_fields()
    _, wrong = _served(ingress_lab, documents, ingress_lab.folder / "hostile-fields")
    for document in documents:
        name = document["spec"]["rules"][0]["host"]
        if not re.fullmatch(r"[a-z0-9.]+", name):
            continue
        for target in ("/", "/pwn", "/x", "/bla"):
            reply = ingress_lab.client.ask(Request(host=name, target=target))
            wrong += _odd(reply, f"{document['metadata']['name'][:40]!r} {target}", ingress_lab)
    assert not wrong, "\n".join(wrong[:40])


@pytest.mark.parametrize("number", range(0, len(PAYLOADS), 7))
def test_no_setting_says_more_than_it_may(ingress_lab: IngressLab, number: int) -> None:
    """The ConfigMap is an administrator's; still it is read by type, and a wrong value leaves the default.

    One with a key that no API server takes cannot be used at all: nothing is written then, as it may close something.
    """
    value = PAYLOADS[number]
    namespace, name = objects.CONTROLLER_CONFIG.split("/")
    data = {key: value for key in SETTINGS if not _GUARDS.fullmatch(key)}
    if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", value):
        spoilt = objects.config_map(name, data | {value: value}, namespace)
        ingress_lab.node.apply(BASE)
        ingress_lab.node.write([*BASE, spoilt])
        refused = ingress_lab.node.run("apply")
        assert refused.code == 1
        assert not re.search(r"[^\n -\ufffd]", refused.stdout + refused.stderr)
        assert ingress_lab.client.ask(Request(host="ok.test")).status == 200
    settings = objects.config_map(name, data, namespace)
    _, wrong = _served(ingress_lab, [settings], ingress_lab.folder / f"hostile-settings-{number}")
    assert not wrong, f"{value[:80]!r}\n" + "\n".join(wrong[:40])
