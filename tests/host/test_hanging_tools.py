"""A tool that hangs is given up after a time limit; the error names it, and no object is taken for the cause."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from rulegen.errors import HostError
from rulegen.host.commands import runner
from rulegen.host.commands.runner import Command, Completed, ToolTimeoutError
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.refused_services import is_refusal
from rulegen.host.haproxy.facts import check_version
from rulegen.host.netfilter import conntrack, ipset, iptables, nft
from rulegen.host.netfilter.variant import Variant
from rulegen.host.nginx.facts import gather_nginx
from rulegen.net import Family

RULES = "*nat\n:KUBE-MARK-MASQ - [0:0]\nCOMMIT\n"
CALLS: dict[str, Callable[[runner.Runner], object]] = {
    "ipset list": ipset.observe,
    "ipset -exist restore": lambda run: ipset.restore(run, "create a hash:ip\n"),
    "conntrack -L": lambda run: conntrack.list_flows(run, Family.IPV4),
    "nft list tables": lambda run: nft.observe(run, Family.IPV4, frozenset({"kube-proxy"})),
    "nft -f": lambda run: nft.write(run, "add table ip a\n"),
    "iptables-nft-save": lambda run: iptables.observe(run, Variant.NFT, Family.IPV4),
    "ip6tables-legacy-restore": lambda run: iptables.restore(run, Variant.LEGACY, Family.IPV6, RULES),
    "nginx -V": gather_nginx,
    "haproxy -v": lambda run: check_version(run, "haproxy"),
}
LONGEST_S = 61.0


@pytest.mark.parametrize("words", CALLS)
def test_it_is_killed_and_named_and_blames_nothing(words, tmp_path, monkeypatch):
    name = words.split()[0]
    tool = tmp_path / name
    tool.write_text("#!/bin/sh\nsleep 600 & exec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    limits: list[float] = []

    def run(command: Command) -> Completed:
        """Run a command with a short limit."""
        assert command.timeout_s is not None
        limits.append(command.timeout_s)
        return runner.run(dataclasses.replace(command, timeout_s=0.3))

    with pytest.raises(HostError, match=words) as caught:
        CALLS[words](run)

    assert isinstance(caught.value, ToolTimeoutError)
    assert 0 < max(limits) < LONGEST_S
    assert not is_refusal(caught.value, DRIVERS)
