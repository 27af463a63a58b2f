"""A request that comes back to a nginx of ours, over this node or another, ends after a few hops, on real nginx."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from rulegen.backends.nginx.locations.headers import MAX_HOPS
from rulegen.kube.objects.kinds import KubeObject
from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.defaults import HttpHost
from rulegen.model.ingress.values.settings import Settings
from tests.rights import needs_nginx, needs_root
from tests.strategies.ingresses import compiled, endpoints, service, settings_map, site, write

pytestmark = [needs_root, needs_nginx, pytest.mark.usefixtures("namespace")]

HERE, THERE, PORT = "192.0.2.7", "192.0.2.8", 8080
SETTINGS = Settings(worker_processes="1")
HOST = HttpHost(user="", http_port=PORT, https_port=8443, ipv6=False)


def serve(folder: Path, *objects: KubeObject, inside: tuple[str, ...] = (), forbidden: Forbidden = NOTHING,
          settings: Settings = SETTINGS) -> Iterator[None]:  # fmt: skip
    """Have a nginx serve objects, in the namespace of the test or in another, until the generator is closed."""
    folder.mkdir()
    result = compiled(*objects, forbidden=forbidden, settings=settings, host=HOST, resolvers=())
    write(result.configuration, folder)
    argv = (*inside, "nginx", "-p", f"{folder}/", "-c", "nginx.conf", "-g", "daemon off;")
    process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


serving = contextlib.contextmanager(serve)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Give the namespace an address, and make another namespace beside it; what enters that is returned."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
    enter = ("nsenter", "-t", str(holder.pid), "-n")
    try:
        until = time.monotonic() + 10
        own = Path("/proc/thread-self/ns/net").readlink()
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == own:
            assert time.monotonic() < until
            time.sleep(0.01)
        for argv in (
            ("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"),
            ("ip", "link", "set", "eth1", "netns", str(holder.pid)),
            ("ip", "addr", "add", f"{HERE}/24", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            (*enter, "ip", "link", "set", "lo", "up"),
            (*enter, "ip", "addr", "add", f"{THERE}/24", "dev", "eth1"),
            (*enter, "ip", "link", "set", "eth1", "up"),
        ):
            subprocess.run(argv, check=True, timeout=10)
        yield enter
    finally:
        holder.terminate()
        holder.wait(10)


def opened(inside: tuple[str, ...] = ()) -> int:
    """Return how many connections were opened in a namespace so far."""
    argv = (*inside, "cat", "/proc/thread-self/net/snmp" if not inside else "/proc/self/net/snmp")
    reported = Path(argv[-1]).read_text() if not inside else subprocess.check_output(argv, text=True)
    names, values = (line.split() for line in reported.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("ActiveOpens")])


def ask(where: str = "/", host: str = "site.test", **headers: str) -> int:
    """Return the status that the nginx of this namespace answers with, once it listens."""
    until = time.monotonic() + 20
    while True:
        with contextlib.closing(http.client.HTTPConnection(HERE, PORT, timeout=60)) as connection:
            try:
                connection.request("GET", where, headers={"Host": host, **headers})
                with connection.getresponse() as answer:
                    answer.read()
                    return answer.status
            except ConnectionRefusedError:
                assert time.monotonic() < until, "nginx does not listen"
                time.sleep(0.02)


def to(address: str, name: str = "web") -> tuple[KubeObject, ...]:
    return service(name, cluster_ip="None"), endpoints(name, (address,), ports=(("http", PORT),))


def test_an_endpoint_that_is_the_node_itself_is_not_asked(node, tmp_path):
    own = Forbidden(own=frozenset({ip_address(HERE)}), ports=(PORT, 8443))
    with serving(tmp_path / "nginx", *to(HERE), site(), forbidden=own):
        ask(host="none.test")
        before = opened()
        assert ask() == 503
        assert opened() - before == 1  # ours


@pytest.mark.parametrize("given", ["", "x", "1", "1 1", "0, 0"])
def test_a_loop_over_the_node_itself_ends_after_a_few_hops(given, node, tmp_path):
    """As where nobody knew that the address is the node's."""
    with serving(tmp_path / "nginx", *to(HERE), site()):
        ask(host="none.test")
        before = opened()
        status = ask(**({"X-Rulegen-Hops": given} if given else {}))
        assert status == 508
        assert 1 < opened() - before <= MAX_HOPS + 1


def test_a_loop_over_two_nodes_ends_after_a_few_hops(node, tmp_path):
    with (
        serving(tmp_path / "here", *to(THERE), site()),
        serving(tmp_path / "there", *to(HERE), site(), inside=node),
    ):
        until = time.monotonic() + 20
        while ask() != 508:  # the other one is about to start
            assert time.monotonic() < until
            time.sleep(0.1)
        before = opened() + opened(node)
        assert ask() == 508
        assert 1 <= opened() + opened(node) - before <= MAX_HOPS + 1


def test_a_loop_that_branches_at_each_hop_stays_bounded(node, tmp_path):
    """Each hop asks the auth server, an error page and a mirror, each of which is the loop itself."""
    name = "web.default.svc.cluster.local"
    own = site(
        name, auth_url=f"http://{name}/", custom_http_errors="403,500,503,508", default_backend="web",
        upstream_vhost=name, proxy_next_upstream="off", mirror_target=f"http://{name}/",
    )  # fmt: skip
    with serving(tmp_path / "nginx", *to(HERE), own):
        ask(host="none.test")
        before = opened()
        ask(host=name)
        assert 10 < opened() - before <= 4 ** (MAX_HOPS + 1)


def test_who_sends_the_mark_is_refused_alone(node, tmp_path):
    """What a client sends means nothing to others, and not even to its own next request."""
    back = "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok"
    script = (
        "import socket\ns = socket.create_server(('192.0.2.8', 9000))\n"
        f"while True:\n c, _ = s.accept(); c.recv(65536); c.sendall(b'{back}'); c.close()\n"
    )
    backend = subprocess.Popen([*node, "python3", "-c", script])
    try:
        web = service("web", cluster_ip="None"), endpoints("web", (THERE,), ports=(("http", 9000),))
        with serving(tmp_path / "nginx", *web, site(), settings_map(upstream_keepalive_connections="0")):
            until = time.monotonic() + 20
            while ask() != 200:
                assert time.monotonic() < until
                time.sleep(0.1)
            assert ask(**{"X-Rulegen-Hops": "1 " * MAX_HOPS}) == 508
            assert ask(**{"X-Rulegen-Hops": "1 " * (MAX_HOPS - 1)}) == 200
            assert ask() == 200
    finally:
        backend.terminate()
        backend.wait(10)
