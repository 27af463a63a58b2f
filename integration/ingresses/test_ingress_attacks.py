"""Attacks of many kinds at once, in one world: each ends as its kind must, a victim and a control notice nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from integration.ingress import certificates, objects, reports
from integration.ingress.asking import Reply, Request, basic_auth
from integration.ingress.spaces import NODE

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.ingress.objects import Document

pytestmark = [pytest.mark.xdist_group("ingress-0"), pytest.mark.usefixtures("ingress_node")]

End = Literal["nothing", "closed", "plain"]
"""Nothing of the host is served; all requests are refused; it is served as if the value were not there."""

TARGETS = ("/", "/x", "/pwn", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!")
LATER = "2026-02-01T00:00:00Z"


@dataclass(frozen=True)
class Attack:
    """Objects of somebody who means ill, and how they must end.

    Attributes:
        host: Which is asked; empty for none.
        reported: What the plan must say beside the name; empty where there is nothing to say.
    """

    name: str
    documents: tuple[Document, ...]
    end: End
    reported: str = ""
    host: str = ""


def by_annotation(name: str, annotations: Mapping[str, Any], end: End, reported: str = "", *more: Document) -> Attack:
    """Return an attack of one Ingress, by its annotations."""
    host = f"{name}.evil.test"
    reported = reported or f"/{list(annotations)[-1]}"
    return Attack(name, (objects.ingress(name, host, annotations=annotations), *more), end, reported, host)


def by_change(name: str, end: End, reported: str, *steps: str | int, to: Any) -> Attack:
    """Return an attack of one Ingress, in which one field is another."""
    host = f"{name}.evil.test"
    entry: Any = objects.ingress(name, host)
    place = entry
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = to
    return Attack(name, (entry,), end, reported, host)


def by_path(name: str, path: str, kind: str, *, use_regex: bool = False, reported: str = "paths[0].path") -> Attack:
    """Return an attack by a path; one that is nothing but itself is served as that, and there is nothing to tell."""
    host = f"{name}.evil.test"
    entry = objects.ingress(name, host, annotations={"use-regex": "true"} if use_regex else None)
    entry["spec"]["rules"][0]["http"]["paths"][0] |= {"path": path, "pathType": kind}
    return Attack(name, (entry,), "nothing", reported, host)


def by_guest(name: str, annotations: Mapping[str, str], *more: Document, **other: Any) -> Attack:
    """Return an attack of another namespace on the host of the victim."""
    rest = {"paths": [f"/{name}"], "created": LATER} | other
    entry = objects.ingress(name, "victim.test", namespace="evil", annotations=annotations, **rest)
    return Attack(name, (entry, *more), "plain", f"evil/{name}")


def by_secret(name: str, kind: str, data: Mapping[str, bytes], annotations: Mapping[str, str], end: End) -> Attack:
    """Return an attack by a Secret."""
    used = {key: value.replace("SECRET", f"default/{name}") for key, value in annotations.items()}
    return by_annotation(name, used, end, f"/{name}", objects.secret(name, kind, data))


def by_password_file(name: str, line: bytes) -> Attack:
    """Return an attack by a line of a password file."""
    return by_secret(name, "Opaque", {"auth": line}, {"auth-type": "basic", "auth-secret": "SECRET"}, "closed")


def by_certificate(name: str, chain: bytes, key: bytes) -> Attack:
    """Return an attack by a TLS Secret."""
    host = f"{name}.evil.test"
    annotations = {"ssl-redirect": "false"}
    made = objects.secret(name, "kubernetes.io/tls", {"tls.crt": chain, "tls.key": key})
    entry = objects.ingress(name, host, secret=name, annotations=annotations)
    return Attack(name, (entry, made), "plain", f"/{name}", host)


def by_service(name: str, *more: Document, address: str = "", **spec: Any) -> Attack:
    """Return an attack by a Service, or by its endpoints."""
    host = f"{name}.evil.test"
    entry = objects.service(name, "10.96.100.9")
    entry["spec"] |= spec
    parts = [objects.endpoint_slice(name, [address])] if address else []
    return Attack(name, (objects.ingress(name, host, name), entry, *parts, *more), "nothing", f"/{name}", host)


def by_url(name: str, url: str) -> Attack:
    """Return an attack by the URL of an auth server."""
    return by_annotation(name, {"auth-url": url}, "closed", "auth-url")


_RULE = ("spec", "rules", 0)
_PATH = (*_RULE, "http", "paths", 0)
_AUTH = {"auth-url": "http://backend.dns.test/"}
_PEM = certificates.certificate("a.evil.test")

ATTACKS = (
    # fields of other types, and of none
    by_change("number-for-path", "nothing", "path", *_PATH, "path", to=7),
    by_change("list-for-host", "nothing", "host", *_RULE, "host", to=["victim.test"]),
    by_change("text-for-port", "nothing", "port", *_PATH, "backend", "service", "port", to="80"),
    by_change("port-of-70000", "nothing", "port", *_PATH, "backend", "service", "port", "number", to=70000),
    by_change("port-of-e308", "nothing", "port", *_PATH, "backend", "service", "port", "number", to=1e308),
    by_change("text-for-rules", "nothing", "rules", "spec", "rules", to="server {}"),
    by_change("text-for-paths", "nothing", "paths", *_RULE, "http", "paths", to="/"),
    by_change("kind-of-path", "nothing", "pathType", *_PATH, "pathType", to="Prefix; return 418"),
    by_change("annotation-of-list", "nothing", "annotations", "metadata", "annotations", to={"a": ["b"]}),
    by_change("created-by-hand", "nothing", "creationTimestamp", "metadata", "creationTimestamp", to="0 {"),
    by_change("host-of-escapes", "nothing", "host", *_RULE, "host", to="a\\.evil.test"),
    by_change("host-of-port", "nothing", "host", *_RULE, "host", to="victim.test:80"),
    by_change("host-of-unicode", "nothing", "host", *_RULE, "host", to="victim.test\u2028evil.test"),
    by_change("host-of-regex", "nothing", "host", *_RULE, "host", to="~^.*$"),
    by_change("wildcard-inside", "nothing", "host", *_RULE, "host", to="victim.*.test"),
    by_change("service-of-dots", "nothing", "service", *_PATH, "backend", "service", "name", to="../victim"),
    by_change("service-of-namespace", "nothing", "service", *_PATH, "backend", "service", "name", to="victim/victim"),
    # paths
    by_path("path-of-surrogate", "/\ud800", "Prefix", reported=""),
    by_path("path-of-dots", "/a/../x", "Prefix"),
    by_path("path-without-slash", "x", "Exact"),
    by_path("path-of-location", "= /x", "ImplementationSpecific"),
    by_path("path-of-name", "@signin", "ImplementationSpecific"),
    by_path("regex-of-two-cases", "/(a|A)+$", "ImplementationSpecific", use_regex=True),
    by_path("regex-of-nothing", "/(a|b{0}a)+$", "ImplementationSpecific", use_regex=True),
    by_path("regex-of-many-digits", "/(a{1,99999}){1,99999}", "ImplementationSpecific", use_regex=True),
    by_path("regex-of-recursion", "/(?R)", "ImplementationSpecific", use_regex=True),
    by_path("regex-of-limits", "(*LIMIT_MATCH=1)/", "ImplementationSpecific", use_regex=True),
    by_path("regex-of-brace", '/x{1}" {return 418;}', "ImplementationSpecific", use_regex=True, reported=""),
    # annotations
    by_annotation("rewrite-to-url", {"rewrite-target": "http://victim.test/$1"}, "nothing"),
    by_annotation("rewrite-of-separator", {"rewrite-target": "/\u2028$1"}, "nothing"),
    by_annotation("redirect-of-script", {"permanent-redirect": "javascript:alert(1)"}, "nothing"),
    by_annotation("redirect-of-user", {"temporal-redirect": "http://ok.test@evil.test/"}, "nothing"),
    by_annotation("root-of-variable", {"app-root": "/$http_cookie"}, "nothing"),
    by_annotation("canary-of-cookie", {"canary": "true", "canary-by-cookie": 'a"; }'}, "nothing"),
    by_annotation("canary-of-weight", {"canary": "true", "canary-weight": "50%"}, "nothing"),
    by_annotation("frames-by-auth", _AUTH | {"auth-response-headers": "Content-Length"}, "closed"),
    by_annotation("smuggles-by-auth", _AUTH | {"auth-response-headers": "X, Transfer-Encoding"}, "closed"),
    by_annotation("method-of-auth", _AUTH | {"auth-method": "GET\r\nX: y"}, "closed"),
    by_annotation("signin-of-authority", _AUTH | {"auth-signin": "https://$http_cookie.evil.test"}, "closed"),
    by_annotation("param-of-signin", _AUTH | {"auth-signin-redirect-param": "rd=x&"}, "closed"),
    by_annotation("allowed-by-scope", {"whitelist-source-range": "fe80::1%eth0; allow all"}, "closed"),
    by_annotation("allowed-by-range", {"allowlist-source-range": "10.0.0.0-10.0.0.9"}, "closed"),
    by_annotation("denied-by-name", {"denylist-source-range": "localhost"}, "closed"),
    by_annotation("depth-of-clients", {"auth-tls-secret": "ca", "auth-tls-verify-depth": "1e3"}, "closed"),
    by_annotation("users-of-another", {"auth-type": "basic", "auth-secret": "victim/users"}, "closed"),
    by_annotation("users-by-ascent", {"auth-type": "basic", "auth-secret": "../victim/users"}, "closed"),
    by_annotation("authority-of-another", {"auth-tls-secret": "victim/ca"}, "closed"),
    by_annotation("client-of-another", {"proxy-ssl-secret": "victim/cert"}, "closed"),
    by_annotation("rate-of-overflow", {"limit-rps": "9223372036854775808"}, "closed"),
    by_annotation("rate-of-digits", {"limit-rpm": "\u0661\u0660"}, "closed"),
    by_annotation("time-of-centuries", {"proxy-read-timeout": "9999999h"}, "plain"),
    by_annotation("size-of-exabytes", {"client-body-buffer-size": "9e"}, "plain"),
    by_annotation("ciphers-of-level", {"ssl-ciphers": "ALL:@SECLEVEL=0;x"}, "plain"),
    by_annotation("hash-of-body", {"upstream-hash-by": "$request_body"}, "plain"),
    by_annotation("hash-of-nothing", {"upstream-hash-by": "$http_$"}, "plain"),
    by_annotation("host-for-backend", {"upstream-vhost": "victim.test\nX-Evil: 1"}, "plain"),
    by_annotation("prefix-of-header", {"rewrite-target": "/", "x-forwarded-prefix": "/a\r\nX-Evil: 1"}, "plain"),
    by_annotation("origin-of-regex", {"enable-cors": "true", "cors-allow-origin": "https://.*"}, "plain"),
    by_annotation("exposes-a-line", {"enable-cors": "true", "cors-expose-headers": "X\r\nX-Evil: 1"}, "plain"),
    by_annotation("cookie-of-domain", {"affinity": "cookie", "session-cookie-domain": "a; X-Evil"}, "plain"),
    by_annotation("headers-of-another", {"custom-headers": "victim/headers"}, "closed"),
    by_annotation("alias-of-victim", {"server-alias": "victim.test"}, "plain"),
    by_annotation("alias-of-default", {"server-alias": "_"}, "plain"),
    by_annotation("ingress-of-nobody", {"backend-protocol": "GRPC:// unix:/run/x"}, "plain"),
    # the node itself, in other words
    by_url("auth-of-short-name", "http://127.1/"),
    by_url("auth-of-number", "http://2130706433/"),
    by_url("auth-of-octal", "http://0177.0.0.1/"),
    by_url("auth-of-mapped", "http://[::ffff:127.0.0.1]/"),
    by_url("auth-of-dot", "http://LOCALHOST./"),
    by_url("auth-of-link", "http://[fe80::1]:10250/"),
    by_url("auth-of-socket", "http://unix:/run/docker.sock:/"),
    by_url("auth-of-user", "http://backend.dns.test@127.0.0.1/"),
    by_url("auth-of-file", "file:///etc/passwd"),
    by_url("auth-of-clients", "http://$http_x_forwarded_host/"),
    by_url("auth-of-the-node", f"http://{NODE}:10250/pods"),
    by_url("auth-of-the-gateway-of-clouds", "http://100.100.100.200/latest/meta-data/"),
    by_service("name-of-the-node", type="ExternalName", externalName=NODE),
    by_service("endpoint-of-the-node", address=NODE),
    by_service("endpoint-of-the-node-mapped", address=f"::ffff:{NODE}"),
    by_service("name-of-socket", type="ExternalName", externalName="unix:/run/docker.sock"),
    by_service("name-of-node", type="ExternalName", externalName="a.localhost"),
    by_service("name-of-number", type="ExternalName", externalName="0x7f000001"),
    by_service("name-of-link", type="ExternalName", externalName="169.254.169.254"),
    by_service("endpoint-of-link", address="169.254.169.254"),
    by_service("endpoint-of-all", address="0.0.0.0"),
    by_service("endpoint-of-many", address="224.0.0.1"),
    by_service("endpoint-of-zeros", address="0127.0.0.1"),
    by_service("address-of-node", clusterIP="127.0.0.1", clusterIPs=["127.0.0.1"]),
    # what Secrets hold
    by_password_file("hash-of-days", b"x:$2y$31$" + b"a" * 53),
    by_password_file("hash-of-hours", b"x:$6$rounds=999999999$a$b"),
    by_password_file("hash-of-memory", b"x:$7$FU..../....a$b"),
    by_password_file("hash-of-line", b"x:{SHA}a\rroot:{PLAIN}x"),
    by_password_file("hash-of-nobody", b":{PLAIN}x"),
    by_password_file("hash-of-bytes", b"x:\xff\x00"),
    by_certificate("certificate-of-size", _PEM * 21, certificates.key_pem()),
    by_certificate("certificate-of-noise", b"# " + b"x" * (64 << 10) + _PEM, certificates.key_pem()),
    by_certificate("certificate-of-cut", _PEM[:-60], certificates.key_pem()),
    by_certificate("key-of-another", certificates.certificate("key-of-another.evil.test"), certificates.key_pem(1)),
    by_certificate("key-of-garbage", _PEM, b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"),
    by_secret("authority-of-garbage", "Opaque", {"ca.crt": b"x"}, {"auth-tls-secret": "SECRET"}, "closed"),
    # another's host
    by_guest("guest-closes", {"auth-tls-secret": "gone"}),
    by_guest("guest-asks", {"auth-tls-secret": "ca"}, objects.secret("ca", "Opaque", {"ca.crt": _PEM}, "evil")),
    by_guest("guest-roots", {"app-root": "/pwn"}),
    by_guest("guest-matches", {"use-regex": "true"}, paths=["/(.*)"]),
    by_guest("guest-rewrites", {"rewrite-target": "/pwn"}, paths=["/[^?]{0,999}", "/|."]),
    by_guest("guest-repeats", {}, paths=["/"]),
    by_guest("guest-redirects", {"permanent-redirect": "http://evil.test/"}, paths=["/"]),
    by_guest("guest-weakens", {"ssl-ciphers": "AES128-SHA"}),
    by_guest(
        "guest-shares", {"canary": "true", "canary-weight": "100"}, objects.service("echo", "10.96.100.4", "evil")
    ),
)


def _world(attacks: tuple[Attack, ...]) -> list[Document]:
    """Return the objects of attacks with those of the control and the victim."""
    victims = {"auth": certificates.htpasswd({"x": "x"})}
    return [
        objects.ingress_class(),
        objects.ingress("control", "ok.test"),
        objects.service("echo", "10.96.100.1"),
        objects.endpoint_slice("echo", ["10.244.100.1"]),
        objects.secret("ca", "Opaque", {"ca.crt": certificates.certificate("ca")}),
        objects.ingress("owner", "victim.test", "victim", namespace="victim", created="2020-01-01T00:00:00Z"),
        objects.service("victim", "10.96.100.2", "victim"),
        objects.endpoint_slice("victim", ["10.244.100.2"], "victim"),
        objects.secret("users", "Opaque", victims, "victim"),
        objects.secret("ca", "Opaque", {"ca.crt": certificates.certificate("ca")}, "victim"),
        objects.config_map("headers", {"X-Evil": "1"}, "victim"),
        *(document for attack in attacks for document in attack.documents),
    ]


def _wrongs(lab: IngressLab, attack: Attack, planned: Any) -> Iterator[str]:
    """Yield what of an attack does not end as it must."""
    if attack.reported and not reports.about(planned, attack.name, attack.reported):
        yield f"the plan does not tell {attack.reported}"
    for target in TARGETS if attack.host else ():
        for name in (None, attack.host):
            headers = basic_auth("x", "x") | {"X-Custom": "always", "Cookie": "a=always"}
            reply = lab.client.ask(Request(host=attack.host, target=target, name=name, headers=headers))
            shown = f"{'http' if name is None else 'https'}://{attack.host}{target}: {reply.status} {reply.failure}"
            if reply.status in {0, 418, 500} or reply.all("X-Evil"):
                yield f"{shown} {reply.headers}"
            match attack.end:
                case "nothing" if reply.seen or reply.status not in {404, 503}:
                    yield f"{shown}: served"
                case "closed" if reply.seen or reply.status not in {400, 401, 403, 404, 503}:
                    yield f"{shown}: open"
                case "plain" if not _is_of(reply, "10.244.100.1"):
                    yield f"{shown}: not served as without it"


def _is_of(reply: Reply, address: str) -> bool:
    return reply.status == 200 and reply.seen.get("address") == address and not reply.seen_headers("X-Evil")


def _asked(lab: IngressLab, host: str, address: str, targets: tuple[str, ...] = TARGETS) -> Iterator[str]:
    for target in targets:
        for name in (None, host):
            reply = lab.client.ask(Request(host=host, target=target, name=name))
            if not _is_of(reply, address) or reply.all("Set-Cookie") or reply.all("X-Evil"):
                yield f"{host}{target} over {'http' if name is None else 'https'}: {reply.status} {reply.headers}"


def test_attacks_end_as_their_kind_must(ingress_lab: IngressLab) -> None:
    node = ingress_lab.node
    world = _world(ATTACKS)
    done = node.apply(world)
    planned = node.planned()
    wrong = [f"{attack.name}: {entry}" for attack in ATTACKS for entry in _wrongs(ingress_lab, attack, planned)]
    wrong += _asked(ingress_lab, "ok.test", "10.244.100.1")
    wrong += _asked(ingress_lab, "victim.test", "10.244.100.2")
    said = done.stdout + done.stderr
    wrong += [f"prints {text!r}" for text in re.findall(r"[^\n -\ufffd]{1,20}", said)[:3]]
    # All of it is found by what it is: the last net, nginx's own refusal, has nothing to catch.
    wrong += [line for line in said.splitlines() if "quarantine" in line.lower()]

    node.apply([*world, objects.ingress("later", "later.test")])
    wrong += _asked(ingress_lab, "later.test", "10.244.100.1", ("/",))
    assert not wrong, "\n".join(wrong)


def test_no_two_attacks_have_the_same_name(ingress_node: Node) -> None:
    names = [attack.name for attack in ATTACKS]
    assert sorted(set(names)) == sorted(names)
