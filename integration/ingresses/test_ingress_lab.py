"""The lab for Ingresses itself, with an nginx.conf written by hand: so that a failure elsewhere is that of rulegen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import certificates, objects, spaces
from integration.ingress.asking import Reply, Request
from integration.ingress.expectations import Facts, wrongs
from integration.ingress.forms import files
from integration.ingress.forms.requests import Jars, send
from integration.ingress.lab import NAMES
from integration.ingress.objects import UnknownForm

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab

pytestmark = pytest.mark.xdist_group("ingress-0")

CONFIGURATION = """
pid run/nginx.pid;
error_log logs/error.log;
events {}
http {
  access_log off;
  client_body_temp_path run/body;
  proxy_temp_path run/proxy;
  fastcgi_temp_path run/fastcgi;
  uwsgi_temp_path run/uwsgi;
  scgi_temp_path run/scgi;
  resolver 10.96.0.10;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream several { server 10.244.3.1:8080; server 10.244.3.2:8080; }
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Host $host;
  proxy_set_header X-Real-IP $remote_addr;
  server {
    listen 80;
    listen 443 ssl;
    ssl_certificate ../pods.pem;
    ssl_certificate_key ../pods.pem;
    location / { proxy_pass http://several; }
    location /tls { proxy_pass https://10.244.3.3:8080; }
    location /name { set $name backend.dns.test; proxy_pass http://$name; }
    location /noname { set $name nope.dns.test; proxy_pass http://$name; }
    location /closed { auth_basic "closed"; auth_basic_user_file htpasswd; proxy_pass http://several; }
    location /away { return 302 https://away.test/; }
  }
}
"""

WORLD = [
    objects.service("echo", "10.96.3.1"),
    objects.endpoint_slice("echo", ["10.244.3.1", "10.244.3.2"]),
    objects.endpoint_slice("secure", ["10.244.3.3"], namespace="other"),
]


@pytest.fixture(scope="module")
def served(ingress_lab: IngressLab) -> Iterator[IngressLab]:
    """Give the lab with nginx on the node, and end it after the last test."""
    ingress_lab.vacate()
    folder = ingress_lab.folder / "by-hand"
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True)
    (folder / "nginx.conf").write_text(CONFIGURATION)
    (folder / "htpasswd").write_bytes(certificates.htpasswd({"foo": "bar"}))
    argv = ["nginx", "-p", f"{folder}/", "-c", str(folder / "nginx.conf")]
    ingress_lab.node.host.run(argv).check()
    yield ingress_lab
    ingress_lab.node.host.run([*argv, "-s", "quit"]).check()
    deadline = time.monotonic() + 5
    while ingress_lab.node.masters() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ingress_lab.node.masters() == []


UPGRADE = {"Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}

HOLD: list[dict[str, Any]] = [
    {"expect": {"status": 200, "backend": "echo", "backend_port": 8080, "backend_sees": {"method": "GET"}}},
    {"path": "/a?b=1", "expect": {"backend_sees": {"path": "/a?b=1", "headers": {"X-Real-IP": "$client_ip"}}}},
    {"host": "", "expect": {"backend_sees": {"headers": {"X-Real-IP": "~^192\\.168\\."}}}},
    {"method": "POST", "expect": {"backend_sees": {"method": "POST", "host": "a.test"}}},
    {"path": "/tls", "expect": {"backend": "secure", "backend_namespace": "other", "backend_tls": True}},
    {"path": "/name", "expect": {"upstream_name": "backend.dns.test"}},
    {"path": "/noname", "expect": {"status_one_of": [502, 503]}},
    {"repeat": 10, "expect": {"distinct_endpoints": 2, "endpoints_exactly": ["10.244.3.1", "10.244.3.2"]}},
    {"repeat": 10, "burst": True, "expect": {"status_counts": {"200": [10, 10]}, "split": {"echo": [1, 1]}}},
    {"path": "/away", "expect": {"status": 302, "location": "https://away.test/", "headers_absent": ["X-A"]}},
    {"path": "/away", "expect": {"location_one_of": ["https://away.test/"]}},
    {"path": "/closed", "expect": {"status": 401, "headers": {"WWW-Authenticate": "~closed"}}},
    {"path": "/closed", "basic_auth": ["foo", "bar"], "expect": {"status": 200}},
    {"tls": True, "expect": {"backend": "echo", "tls_cert": "default-fake", "backend_headers_absent": ["Proxy"]}},
    {"backend_response_headers": {"X-A": "1"}, "expect": {"headers": {"X-A": "1"}, "header_count": {"X-A": 1}}},
    {"path": "/sleep/0.2", "expect": {"max_seconds": 2}},
    {"path": "/tls", "expect": {"upstream_addr": "10.244.3.3:8080"}},
    {"expect": {"upstream_addr": ["10.244.3.1", "10.244.3.2"]}},
    {"tls": True, "alpn": "http/1.1", "expect": {"status": 200, "alpn": "http/1.1"}},
    {"body_bytes": 10, "expect": {"backend_sees": {"method": "POST", "headers": {"Content-Length": "10"}}}},
    {"path": "/cookie-auth", "headers": {"Cookie": "auth=204"}, "expect": {"status": 204}},
    {"path": "/cookie-auth", "expect": {"status": 401}},
    {"headers": {"X-Code": "404", "X-A": "1"}, "expect": {"headers": {"X-Code": "404", "X-A": "1"}}},
    {"headers": UPGRADE, "path": "/tls", "expect": {"status": 101, "backend": "secure"}},
    {"path": "/tls", "repeat": 3, "expect": {"same_endpoint": True, "min_distinct_endpoints": 1}},
]


@pytest.mark.parametrize("request_of_case", HOLD, ids=str)
def test_what_holds_is_found_to_hold(served: IngressLab, request_of_case: dict[str, Any]) -> None:
    whole = {"host": "a.test", "path": "/"} | request_of_case
    assert served.judge(whole, served.facts(WORLD)) == []


FAIL: list[dict[str, Any]] = [
    {"expect": {"status": 404}},
    {"expect": {"backend": "other"}},
    {"expect": {"backend": "echo", "backend_namespace": "other"}},
    {"expect": {"backend_port": 80}},
    {"expect": {"backend_tls": True}},
    {"expect": {"backend_sees": {"method": "POST"}}},
    {"expect": {"backend_sees": {"path": "/b"}}},
    {"expect": {"backend_sees": {"host": "b.test"}}},
    {"expect": {"backend_sees": {"headers": {"X-Real-IP": "1.1.1.1"}}}},
    {"path": "/away", "expect": {"backend_sees": {"method": "GET"}}},
    {"path": "/away", "expect": {"backend_headers_absent": ["X-A"]}},
    {"expect": {"backend_headers_absent": ["X-Real-IP"]}},
    {"expect": {"upstream_name": "backend.dns.test"}},
    {"expect": {"status_one_of": [502, 503]}},
    {"repeat": 10, "expect": {"distinct_endpoints": 3}},
    {"repeat": 10, "expect": {"min_distinct_endpoints": 3}},
    {"repeat": 10, "expect": {"endpoints_exactly": ["10.244.3.1"]}},
    {"repeat": 10, "expect": {"same_endpoint": True}},
    {"repeat": 10, "expect": {"status_counts": {"200": [3, 4]}}},
    {"repeat": 10, "expect": {"split": {"other": [0.3, 0.7]}}},
    {"path": "/away", "expect": {"location": "https://other.test/"}},
    {"path": "/away", "expect": {"location_one_of": ["https://other.test/"]}},
    {"path": "/away", "expect": {"headers_absent": ["Location"]}},
    {"path": "/away", "expect": {"headers": {"Location": "~other"}}},
    {"expect": {"header_count": {"X-A": 1}}},
    {"tls": True, "expect": {"tls_cert": "a-secret"}},
    {"path": "/sleep/0.3", "expect": {"max_seconds": 0.2}},
    {"expect": {"upstream_addr": "10.244.3.9"}},
    {"path": "/tls", "expect": {"upstream_addr": "10.244.3.3:80"}},
    {"path": "/away", "expect": {"upstream_addr": "~^10"}},
    {"tls": True, "alpn": "http/1.1", "expect": {"alpn": "h2"}},
    {"path": "/away", "headers": UPGRADE, "expect": {"status": 101}},
]


@pytest.mark.parametrize("request_of_case", FAIL, ids=str)
def test_what_does_not_hold_is_found(served: IngressLab, request_of_case: dict[str, Any]) -> None:
    whole = {"host": "a.test", "path": "/"} | request_of_case
    assert len(served.judge(whole, served.facts(WORLD))) == 1


@pytest.mark.parametrize(
    "request_of_case",
    [
        {"expect": {"colour": "red"}},
        {"colour": "red", "expect": {}},
        {"expect": {"backend_sees": {"colour": "red"}}},
        {"alpn": "colour", "expect": {}},
        {"tls": True, "alpn": [1, "colour"], "expect": {}},
        {"body_bytes": "colour", "expect": {}},
        {"cookie_jar": ["colour"], "expect": {}},
    ],
    ids=str,
)
def test_nothing_that_is_expected_is_passed_over(served: IngressLab, request_of_case: dict[str, Any]) -> None:
    with pytest.raises(UnknownForm, match="colour"):
        served.judge({"host": "a.test", "path": "/"} | request_of_case, served.facts(WORLD))


def test_a_client_keeps_its_cookies_to_itself(served: IngressLab) -> None:
    jars: Jars = {}

    def sent(jar: bool | str, host: str = "a.test", path: str = "/", **more: str) -> list[str]:
        asked = {"host": host, "path": path, "cookie_jar": jar, "backend_response_headers": more}
        return [header for reply in send(served.client, asked, jars) for header in reply.seen_headers("Cookie")]

    assert sent(True, **{"Set-Cookie": "a=1; Path=/"}) == []
    assert sent(True, path="/x") == ["a=1"]
    assert sent(True, host="b.test") == []
    assert sent("another") == []
    assert sent(True, path="/sub", **{"Set-Cookie": "b=2; Path=/sub"}) == ["a=1"]
    assert sent(True, path="/sub/x") == ["a=1; b=2"]
    assert sent(True, path="/subs", **{"Set-Cookie": "a=; Path=/; Max-Age=0"}) == ["a=1"]
    assert sent(True, path="/subs", **{"Set-Cookie": "c=3; Path=/; Secure"}) == []
    assert sent(True, path="/subs") == []


@pytest.mark.parametrize(
    ("check", "form"),
    [
        (files.check_case, {"name": "a", "colour": "red"}),
        (files.check_case, {"expect_events": [{"ingress": "default/a", "contains": "", "colour": "red"}]}),
        (files.check_case, {"expect_events": [{"ingress": "default/a", "contains": "", "type": "colour"}]}),
        (files.check_case, {"expect_ingress_status": "colour"}),
        (files.check_entry, {"must": "rejected", "class": "path", "colour": "red"}),
        (files.check_entry, {"must": "colour", "class": "path"}),
        (files.check_entry, {"must": "rejected", "class": "colour"}),
        (files.check_entry, {"must": "rejected", "class": "path", "configmaps": [{"name": "a", "colour": {}}]}),
        (files.check_entry, {"must": "rejected", "class": "path", "victim": "colour"}),
        (objects.described_secret, {"name": "a", "kind": "colour"}),
        (objects.described_secret, {"name": "a", "kind": "htpasswd-map", "users": {}, "colour": "red"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_nothing_of_a_file_is_passed_over(check: Callable[[dict[str, Any]], object], form: dict[str, Any]) -> None:
    with pytest.raises(UnknownForm, match="colour"):
        check(form)


@pytest.mark.parametrize("text", ["version: 2\ncases: []", "version: 1\ncases: []\ncolour: red"])
def test_nor_is_what_stands_beside_the_cases(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.yaml").write_text(text)
    with pytest.raises(UnknownForm):
        files.cases(tmp_path / "cases.yaml")


def test_a_failed_connection_is_no_reply() -> None:
    facts = Facts(owners={}, certificates=lambda _: [], default_certificate=lambda: b"", names=NAMES)
    assert wrongs({"status": 200}, [Reply(0, (), b"", 0.0, failure="refused")], facts) != []


def test_a_connection_that_is_upgraded_brings_every_byte_back(served: IngressLab) -> None:
    with served.client.connect(80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"


def test_a_killed_daemon_leaves_nothing_behind(ingress_lab: IngressLab) -> None:
    ingress_lab.node.host.run(["sh", "-c", "setsid sleep 1000 &"]).check()
    (pid,) = ingress_lab.node.processes("sleep 1000")
    ingress_lab.node.kill(pid)
    time.sleep(0.1)
    assert not (ingress_lab.node.outside(ingress_lab.folder).parents[1] / "proc" / str(pid)).exists()
    assert ingress_lab.node.processes("sleep 1000") == []


def test_the_client_has_one_address(served: IngressLab) -> None:
    reply = served.client.ask(Request(host="a.test"))
    assert reply.seen_headers("x-real-ip") == [spaces.CLIENT]
