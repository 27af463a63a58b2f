"""Services that Ingresses and their canaries name: by external names, by targets of ports, without host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.ingress import objects
from integration.ingress.cast import site, slice_of
from integration.ingress.clients import Ask
from integration.ingress.features import Scenario, World
from integration.ingress.objects import Document
from integration.ingress.scenarios.plain import plain

_NAME = "backend.dns.test"


def _service(name: str, *ports: Mapping[str, Any], **spec: Any) -> Document:
    made = objects.service(name, "")
    made["spec"] = {"clusterIP": "None", **spec, "ports": [{"protocol": "TCP", **port} for port in ports]}
    return made


def _slice(service: str, number: int, port_name: str, address: str) -> Document:
    made = slice_of(service, number, 8080, address)
    made["ports"][0]["name"] = port_name
    return made


def _by_port(host: str, service: str, port: int | str) -> Document:
    made = site(host, service=service)
    backend = made["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    backend["service"]["port"] = {"name": port} if isinstance(port, str) else {"number": port}
    return made


def _canary(host: str, service: str, annotations: dict[str, str]) -> Document:
    given = {"canary": "true", **annotations}
    return site(host, given, service, name=f"{host}-canary", created="2025-02-01T00:00:00Z")


def _gets(host: str, backend: str, headers: dict[str, str] | None = None, *, path: str = "/") -> Ask:
    return Ask(host=host, path=path, headers=headers or {}, want={"status": 200, "backend": backend})


def _gets_name(host: str, headers: dict[str, str] | None = None) -> Ask:
    return Ask(host=host, headers=headers or {}, want={"status": 200, "upstream_name": _NAME})


def _at(host: str, address: str) -> Ask:
    return Ask(host=host, times=4, want={"status": 200, "upstream_addr": [f"{address}:8080"]})


_NAMES = plain(
    "canary-of-external-names",
    [
        _service("far-away", {"port": 80, "targetPort": 80}, type="ExternalName", externalName=_NAME, clusterIP=""),
        site("to-name.test"),
        _canary("to-name.test", "far-away", {"canary-by-header": "X-Try"}),
        site("from-name.test", service="far-away"),
        _canary("from-name.test", "other", {"canary-by-header": "X-Try"}),
        site("name-to-name.test", service="far-away"),
        _canary("name-to-name.test", "far-away", {"canary-weight": "50"}),
        site("sticky-to-name.test", {"affinity": "cookie"}),
        _canary("sticky-to-name.test", "far-away", {"canary-weight": "100"}),
    ],
    _gets("to-name.test", "echo"),
    _gets_name("to-name.test", {"X-Try": "always"}),
    _gets_name("from-name.test"),
    _gets("from-name.test", "other", {"X-Try": "always"}),
    _gets_name("name-to-name.test"),
    _gets_name("sticky-to-name.test"),
)
_PORTS = plain(
    "service-ports-by-their-targets",
    [
        _service(
            "with-targets",
            {"name": "web", "port": 80, "targetPort": "serving"},
            {"name": "more", "port": 81, "targetPort": 8081},
        ),
        _slice("with-targets", 1, "web", "10.244.7.1"),
        _slice("with-targets", 2, "more", "10.244.7.2"),
        _by_port("by-target-name.test", "with-targets", "serving"),
        _by_port("by-target-number.test", "with-targets", 8081),
        _by_port("by-own-name.test", "with-targets", "more"),
        _by_port("by-nothing.test", "with-targets", 82),
        _service(
            "crossed-ports",
            {"name": "first", "port": 8080, "targetPort": 80},
            {"name": "second", "port": 80, "targetPort": 8080},
        ),
        _slice("crossed-ports", 1, "first", "10.244.7.3"),
        _slice("crossed-ports", 2, "second", "10.244.7.4"),
        _by_port("first-that-fits.test", "crossed-ports", 80),
        _by_port("second-by-name.test", "crossed-ports", "second"),
        _service("without-name", {"port": 80, "targetPort": 8080}),
        _slice("without-name", 1, "named", "10.244.7.5"),
        _by_port("without-name.test", "without-name", 80),
    ],
    _at("by-target-name.test", "10.244.7.1"),
    _at("by-target-number.test", "10.244.7.2"),
    _at("by-own-name.test", "10.244.7.2"),
    Ask(host="by-nothing.test", want={"status": 503}),
    _at("first-that-fits.test", "10.244.7.3"),
    _at("second-by-name.test", "10.244.7.4"),
    _at("without-name.test", "10.244.7.5"),
)
_CONDITIONS = plain(
    "canary-conditions-by-the-letter",
    [
        site("any-case.test"),
        _canary("any-case.test", "other", {"canary-by-cookie": "Try-It", "canary-weight": "100"}),
        site("any-text.test"),
        _canary("any-text.test", "other", {"canary-by-header": "X-Any", "canary-by-header-pattern": ".*"}),
        site("no-total.test"),
        _canary("no-total.test", "other", {"canary-weight": "100", "canary-weight-total": "0"}),
        site("negative.test"),
        _canary("negative.test", "other", {"canary-weight": "-1", "canary-weight-total": "-1"}),
        site("meaningless.test"),
        _canary("meaningless.test", "other", {"canary-weight": "100", "rewrite-target": "http://x", "app-root": "x"}),
        site("unprotected.test"),
        _canary("unprotected.test", "other", {"canary-weight": "100", "whitelist-source-range": "nowhere"}),
    ],
    _gets("any-case.test", "other"),
    _gets("any-case.test", "echo", {"Cookie": "a=b; try-it=never"}),
    _gets("any-case.test", "echo", {"Cookie": "TRY-IT = never"}),
    _gets("any-case.test", "echo", {"Cookie": "a=b, try-it=never"}),
    _gets("any-case.test", "other", {"Cookie": "Try-It=NEVER"}),
    _gets("any-case.test", "other", {"Cookie": "xtry-it=never"}),
    _gets("any-text.test", "echo"),
    _gets("any-text.test", "other", {"X-Any": "thing"}),
    _gets("any-text.test", "other", {"x-ANY": "thing"}),
    _gets("no-total.test", "other"),
    _gets("negative.test", "echo"),
    _gets("meaningless.test", "other"),
    _gets("unprotected.test", "echo"),
)


def _without_rules(name: str, service: str, annotations: dict[str, str]) -> Document:
    made = site("", annotations, service, name=name, created="2025-02-01T00:00:00Z")
    (entry,) = made["spec"].pop("rules")[0]["http"]["paths"]
    made["spec"]["defaultBackend"] = entry["backend"]
    return made


_WITHOUT_HOST = Scenario(
    name="canary-of-paths-without-host",
    world=World(name="without-host"),
    documents=(
        site("", path="/app", name="hostless-app"),
        site("", service="third", path="/more", name="hostless-more"),
        site("known-host.test", path="/app"),
        _without_rules("hostless-canary", "other", {"canary": "true", "canary-by-header": "X-Try"}),
    ),
    asks=(
        _gets("unknown.test", "echo", path="/app/x"),
        _gets("unknown.test", "other", {"X-Try": "always"}, path="/app/x"),
        _gets("unknown.test", "third", path="/more"),
        _gets("unknown.test", "other", {"X-Try": "always"}, path="/more"),
        Ask(host="unknown.test", headers={"X-Try": "always"}, want={"status": 404}),
        _gets("known-host.test", "echo", {"X-Try": "always"}, path="/app"),
    ),
)

SCENARIOS = (_NAMES, _PORTS, _CONDITIONS, _WITHOUT_HOST)
