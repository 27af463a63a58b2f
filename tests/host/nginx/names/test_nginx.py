"""nginx reaches the node itself by no name, whatever the name servers say."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import threading
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from rulegen.host.nginx.service import NginxService
from rulegen.host.proxy.resolver import control
from rulegen.host.proxy.resolver.settings import Naming
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.forbidden import Forbidden
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.values.settings import Settings
from tests.host.nginx.names.name_server import PORT, NameServer
from tests.rights import needs_nginx, needs_sandbox
from tests.strategies.ingresses import WEB, compiled, ingress, path, rule, service, site

HTTP, PRIVATE = 8080, 10249
OWN = {
    "settings": Settings(worker_processes="1"),
    "host": HttpHost(http_port=HTTP, https_port=8443, names_port=PORT, ipv6=False),
}


class Page:
    """A page that is for this node alone: it notes who asks."""

    def __init__(self, *addresses: str, port: int = PRIVATE) -> None:
        self.visits: list[str] = []
        self._links = [socket.create_server((address, port)) for address in addresses]
        self._threads = [threading.Thread(target=self._serve, args=(link,), daemon=True) for link in self._links]
        for thread in self._threads:
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = link.accept()
                with client:
                    self.visits.append(link.getsockname()[0])
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret")

    def close(self) -> None:
        for link, thread in zip(self._links, self._threads, strict=True):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            link.close()


def get(where: str = "/", host: str = "site.test") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", HTTP, timeout=60)) as connection:
        connection.request("GET", where, headers={"Host": host})
        with connection.getresponse() as answer:
            return answer.status, answer.read()


def external(target: str, port: int) -> tuple[KubeObject, ...]:
    """Return an Ingress that has requests passed to a name, as if they were for this host."""
    reported = service(
        "web", type="ExternalName", external_name=target, cluster_ip="", ports=(k.ServicePort(port=port),)
    )
    rules = rule("site.test", path("/", port=port))
    return reported, ingress("site", rules, annotations={"upstream-vhost": "localhost"})


@needs_nginx
@needs_sandbox
@pytest.mark.slow
def test_nginx_reaches_nothing_of_the_node_by_a_name(
    server: NameServer, service: NginxService, eventually: Callable[..., None]
) -> None:
    """The name leads to where it may at first, then to where it may not, as often as its owner likes."""
    subprocess.run(["ip", "addr", "add", "192.0.2.7/32", "dev", "lo"], check=True)
    subprocess.run(["ip", "addr", "add", "198.51.100.9/32", "dev", "lo"], check=True)
    page, outside = Page("127.0.0.1", "192.0.2.7"), Page("198.51.100.9")
    try:
        server.table["evil.test"] = ["198.51.100.9"]
        result = compiled(
            *external("evil.test", PRIVATE),
            served=True,
            **OWN,
            resolvers=("127.0.0.53",),
            forbidden=Forbidden(own=frozenset({ip_address("192.0.2.7")}), ports=(HTTP, 8443)),
        )
        model = result.model
        service.naming = Naming.of(model.defaults.names_port, model.resolvers, model.forbidden)
        outcome = service.apply(result.configuration)
        assert not [note for note in outcome.notes if "names" in note]
        assert get() == (200, b"secret")
        assert outside.visits
        for address in ("127.0.0.1", "192.0.2.7", "::1", "0.0.0.0", "169.254.169.254"):
            name_of = f"{address.replace('.', '-').replace(':', 'x')}.evil.test"
            server.table[name_of] = [address]
            other = compiled(
                *external(name_of, PRIVATE), served=True, **OWN, resolvers=("127.0.0.53",),
                forbidden=model.forbidden,
            )  # fmt: skip
            service.apply(other.configuration)
            status, body = get()
            assert (status, b"secret" in body) == (502, False), address
            assert name_of in server.asked
        assert page.visits == []
        log = (service.folder / "logs" / control.LOG).read_text()
        assert "127-0-0-1.evil.test: 127.0.0.1 is a loopback address: nginx does not get this address" in log
        supervisor_log = (service.folder / "logs" / "keeper.log").read_text()
        pid = int(supervisor_log.split("process ")[1].split(" ")[0])
        subprocess.run(["kill", "-9", str(pid)], check=True)
        eventually(lambda: control.answers(PORT), 30)
        service.naming = None
        service.apply(compiled(*WEB, site(), served=True, **OWN, resolvers=()).configuration)
        eventually(lambda: not control.answers(PORT), 30)
    finally:
        page.close()
        outside.close()


def test_other_ports_ask_the_process_more_strictly():
    for port, is_strict in ((PRIVATE, True), (HTTP, False)):
        result = compiled(*external("out.test", port), **OWN, resolvers=("192.0.2.53",))
        main = result.configuration.files["nginx.conf"]
        assert f"resolver 127.0.0.1:{PORT} valid=30s ipv6=off;" in main
        texts = "".join(result.configuration.files.values())
        assert (f"resolver 127.0.0.2:{PORT}" in texts) is is_strict
    result = compiled(*WEB, site(auth_url="http://auth.test:9000/"), **OWN, resolvers=("192.0.2.53",))
    assert f"resolver 127.0.0.2:{PORT}" in "".join(result.configuration.files.values())
    result = compiled(*WEB, site(), **OWN, resolvers=("192.0.2.53",))
    assert result.model.defaults.names_port == 0
