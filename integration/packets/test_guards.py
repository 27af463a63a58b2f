"""Loopback addresses of a node stay out of a neighbour's reach, whatever is written or removed, at every step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from integration import manifests, rulesets, saves
from integration.blackbox import VARIANT_ROWS
from integration.conftest import IPTABLES
from integration.manifests import App
from integration.packets.test_options import LOCALHOST, sends_to_loopback_of_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.blackbox import Rulegen, Variant
    from integration.lab.lab import Lab
    from integration.lab.peers import Transport

PORTED = App(name="ported", number=101, ready=("pod-a",), type="NodePort")
WORLD = manifests.world((PORTED,))
PORT = 32297
SWITCH = "/proc/sys/net/ipv4/conf/all/route_localnet"
SILENCE_S = 0.3


GUARDED = ("rulegen loopback-guard", "rulegen loopback-guard 0")
"""The chain and its rule."""


def is_open(lab: Lab, protocol: Transport) -> bool:
    """Whether a daemon on the node's 127.0.0.1 answers the neighbour."""
    return lab.client.request(protocol, "127.0.0.1", PORT, timeout_s=SILENCE_S).outcome == "answered"


def value(lab: Lab) -> str:
    return lab.node.run(["cat", SWITCH]).check().stdout.strip()


@contextmanager
def read_only_parameters(lab: Lab) -> Iterator[list[str]]:
    """Yield what a command line begins with to be run where /proc/sys is read-only, as in a container."""
    yield ["unshare", "--mount", "sh", "-ec", 'mount --bind -o ro /proc/sys /proc/sys; exec "$@"', "sh"]


@pytest.fixture
def node(lab: Lab, rulegen: Rulegen, variant: Variant) -> Iterator[Rulegen]:
    """Give rulegen on a node with a daemon on its loopback address, and a neighbour that sends there."""
    rulesets.wipe(lab.node, variant)
    rulegen.options = LOCALHOST if VARIANT_ROWS[variant].table else ()
    lab.node.run(["sh", "-ec", f"echo 0 > {SWITCH}"]).check()
    for protocol in ("TCP", "UDP"):
        if lab.node.request(protocol, "127.0.0.1", PORT, timeout_s=SILENCE_S).outcome != "answered":  # labs are shared
            lab.node.listen(protocol, 4, PORT, "127.0.0.1")
    with sends_to_loopback_of_node(lab):
        yield rulegen
    rulegen.served, rulegen.options = None, ()
    rulesets.wipe(lab.node, variant)
    lab.node.run(["sh", "-ec", f"echo 0 > {SWITCH}"]).check()


def test_cleanup_closes_the_loopback_prefix(lab: Lab, node: Rulegen) -> None:
    node.apply(WORLD)
    assert (value(lab), is_open(lab, "TCP"), is_open(lab, "UDP")) == ("1", False, False)
    node.cleanup()
    assert (value(lab), is_open(lab, "TCP"), is_open(lab, "UDP")) == ("0", False, False)


@pytest.mark.variants(*IPTABLES)
def test_beside_a_kubelet_the_prefix_and_its_guard_stay(lab: Lab, node: Rulegen, variant: Variant) -> None:
    node.apply(WORLD)
    lab.node.run([f"iptables-{variant}", "-w", "-t", "mangle", "-N", "KUBE-KUBELET-CANARY"]).check()
    done = node.cleanup()
    assert (value(lab), is_open(lab, "TCP"), is_open(lab, "UDP")) == ("1", False, False)
    assert "route_localnet = 1 and the rule of KUBE-FIREWALL that protects it stay" in done.stdout
    lab.node.run([f"iptables-{variant}", "-w", "-t", "mangle", "-X", "KUBE-KUBELET-CANARY"]).check()
    node.cleanup()
    assert (value(lab), is_open(lab, "TCP")) == ("0", False)


def test_where_parameters_are_read_only_the_guard_stays(lab: Lab, node: Rulegen, variant: Variant) -> None:
    node.apply(WORLD)
    with read_only_parameters(lab) as begin:
        done = lab.node.run([*begin, *node.argv("cleanup")], timeout_s=120).check()
    assert (value(lab), is_open(lab, "TCP"), is_open(lab, "UDP")) == ("1", False, False)
    assert "cannot be set to 0 here" in done.stdout
    if VARIANT_ROWS[variant].table:
        left = {place for rules in rulesets.observe(lab.node, variant).values() for place, _ in rules}
        assert {place.removeprefix(" ") for place in left} == {"rulegen", *GUARDED}
    else:
        texts = saves.save(lab.node, variant).values()
        left = {line.chain for text in texts for line in saves.lines(text) if line.is_proxys}
        assert left <= {"KUBE-FIREWALL", "INPUT", "OUTPUT"}
    node.cleanup()
    assert (value(lab), is_open(lab, "TCP")) == ("0", False)


@pytest.mark.variants("nft")
def test_a_cleanup_that_is_killed_leaves_no_way_in(lab: Lab, node: Rulegen) -> None:
    """Killed once the first chains are gone."""
    node.apply(WORLD)
    kill = "import os, signal\nimport rulegen.host.netfilter.iptables as i\nbefore = i.restore\n"
    kill += "i.restore = lambda *a, **k: (before(*a, **k), os.kill(os.getpid(), signal.SIGKILL))\n"
    argv = node.argv("cleanup")
    code = f"{kill}from rulegen.cli.main import main\nmain({argv[argv.index('cleanup') :]!r})"
    assert lab.node.run([argv[0], "-c", code], timeout_s=120).code != 0
    assert (value(lab), is_open(lab, "TCP"), is_open(lab, "UDP")) == ("0", False, False)
    node.cleanup()
