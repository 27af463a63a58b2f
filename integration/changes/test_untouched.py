"""What rulegen leaves as it is, and where it listens: the README's "What it touches, and what it does not"."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration import forks, manifests
from integration.agent import Node, network_namespace, tool, until
from integration.ingress import objects
from integration.manifests import App
from tests.rights import needs_root
from tests.servers.fakeapi import FakeApi

pytestmark = [needs_root, pytest.mark.slow, pytest.mark.xdist_group("agent faults")]

ONE = App(name="one", number=911, ready=("pod-a", "pod-b"), type="LoadBalancer", ranges=("10.0.0.0/8",))
OURS = re.compile(
    r"net/ipv4/conf/\w+/route_localnet"  # `all` is what is set, which shows at each interface
    r"|net/netfilter/nf_conntrack_(tcp_be_liberal|max|buckets|tcp_timeout_(established|close_wait)|udp_timeout(_stream)?)"
    r"|net/nf_conntrack_max"
)
"""Kernel parameters that the documentation names."""

COUNTING = re.compile(
    r"net/netfilter/nf_conntrack_count|net/.*/(statistics|stat_refresh|flush)$|net/ipv4/tcp_fastopen_key"
)


@contextmanager
def a_node() -> Iterator[tuple[Node, Path]]:
    with network_namespace(), FakeApi() as api, tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)  # nginx's workers are another user
        api.put("nodes", *manifests.nodes())
        node = Node(root, api)
        node.serve(ONE)
        yield node, root


def parameters() -> dict[str, str]:
    """Return all parameters of this network namespace that can be read."""
    collected = {}
    for path in Path("/proc/sys/net").rglob("*"):
        name = str(path.relative_to("/proc/sys"))
        if path.is_file() and not COUNTING.search(name):
            try:
                collected[name] = path.read_text()
            except OSError:
                continue
    return collected


def network() -> dict[str, str]:
    """Return interfaces, addresses, routes of all tables, and rules about routes."""
    return {
        what: tool("ip", *what.split())
        for what in ("-o addr", "-br link", "route show table all", "-6 route show table all", "rule", "-6 rule")
    }


def kernel() -> dict[str, str]:
    """Return all that rulegen may write, too."""
    rules = {family: tool(f"ip{six}tables-nft-save") for family, six in ((4, ""), (6, "6"))}
    shown = {str(family): re.sub(r"^#.*$|\[\d+:\d+\]", "", text, flags=re.MULTILINE) for family, text in rules.items()}
    return shown | network() | parameters()


def sockets(kind: str) -> set[tuple[str, str]]:
    """Return program and address of each socket of a kind that is listened on."""
    results = set()
    for line in tool("ss", f"-Hlnp{kind}").splitlines():
        words = line.split()
        program = re.search(r'\(\("([^"]+)"', line)
        address = next((word for word in words if re.match(r"\S+:\w+$|@|[^\s(]*/", word)), "")  # a pair has none
        results.add((program[1] if program else "", address))
    return results


def test_the_agent_changes_only_what_is_documented() -> None:
    with a_node() as (node, _):
        before, settings = network(), parameters()
        with node.running():
            until(lambda: node.rules.sends_to(ONE, "pod-a", "pod-b"), 20, "the Service is there")
            after = network()
            changed = {name for name, value in parameters().items() if settings.get(name) != value}

        assert after == before
        assert {name for name in changed if not OURS.fullmatch(name)} == set()
        assert "net/ipv4/conf/all/route_localnet" in changed  # so a change is seen


def test_a_plan_and_an_export_write_nothing() -> None:
    with a_node() as (node, root):
        tool("iptables-nft", "-t", "nat", "-N", "OTHERS")  # so that what is loaded by reading is there before
        tool("ip6tables-nft", "-t", "nat", "-N", "OTHERS")
        forks.run(node.argv("plan")).check_returncode()
        before = kernel()

        planned = forks.run(node.argv("plan"))
        planned.check_returncode()
        export = [
            word for word in node.argv("export", "-o", str(root / "exported")) if word not in {"--variant", "nft"}
        ]
        forks.run(export).check_returncode()

        assert "to add" in planned.stdout
        assert kernel() == before


WEB = {f"{host}:{port}" for host in ("0.0.0.0", "[::]") for port in (80, 443)}
PAGES = {"0.0.0.0:10256", "127.0.0.1:10249"}


@pytest.mark.parametrize(
    ("engine", "mode", "proxied", "local"),
    [
        pytest.param("nginx", "iptables", set(), {"status", "signin"}, id="nginx"),
        pytest.param(
            "haproxy",
            "userspace",
            {"0.0.0.0:10261", "[::]:10261"},
            {"master", "worker", "haproxy", "supervisor", "relay"},
            id="haproxy and userspace mode",
        ),
    ],
)
def test_nothing_listens_but_on_documented_ports(engine: str, mode: str, proxied: set[str], local: set[str]) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    with a_node() as (node, root):
        node.mode = mode
        node.api.put("ingressclasses", objects.ingress_class())
        node.api.put("services", objects.service("echo", "10.96.100.1"))
        node.api.put("endpointslices", objects.endpoint_slice("echo", ["10.244.100.1"]))
        node.api.put("ingresses", objects.ingress("shop", "shop.test"))
        with node.running("--ingress", "--ingress-engine", engine, f"--{engine}-dir", str(root / engine)):
            until(lambda: any(":443" in address for _, address in sockets("t")), 30, "the proxy serves")
            api = node.api.url.rpartition(":")[2]
            tcp = {(program, address) for program, address in sockets("t") if not address.endswith(f":{api}")}
            unix = {
                Path(address).name.partition(".sock")[0] for program, address in sockets("x") if address and program
            }

            assert {address for program, address in tcp if program == engine} == WEB | proxied
            assert {address for program, address in tcp if program != engine} == PAGES
            assert {address for _, address in sockets("u")} == proxied
            assert unix == local
        assert forks.run([*node.argv("cleanup")[:6], "--variant", "nft", "-y"]).returncode == 0  # the proxy of the mode
