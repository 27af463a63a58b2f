"""Node ports on localhost, an extra of layout flat of nftables mode: the table, its guard and the parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.cli.main import main
from tests.backends.nftables.test_flat import options, tables_of_plan, usual
from tests.parity.test_parity import run

LOCALHOST = ("--nftables-extra", "localhost-node-ports")


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), "ip daddr @nodeport-ips meta l4proto . th dport"),  # the primary address, and 127.0.0.1
        (("--nodeport-addresses", "0.0.0.0/0,::/0"), "fib daddr type local meta l4proto . th dport"),
    ],
    ids=["primary", "all"],
)
def test_node_ports_on_localhost_with_their_guard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], addresses: tuple[str, ...], expected: str
):
    world = usual()
    given = (*options(world), *LOCALHOST, *addresses)
    assert run(capsys, "export", *given, "-o", str(tmp_path))[0] == 0
    table = (tmp_path / "nftables.nft").read_text()
    assert 'iifname != "lo" ip daddr 127.0.0.0/8 drop' in table
    assert table.count("loopback-guard") == 1, "only IPv4"
    assert expected in table
    assert ("elements = { 127.0.0.1" in table or "127.0.0.1," in table) is not addresses
    assert "net.ipv4.conf.all.route_localnet = 1" in (tmp_path / "sysctl.conf").read_text()


def test_layout_kube_proxy_has_no_extras(capsys: pytest.CaptureFixture[str]):
    """And with an extra, a node that has the table of kube-proxy moves to layout flat."""
    world = usual()
    given = [word for word in options(world) if word not in {"--nftables-layout", "flat"}]
    with pytest.raises(SystemExit):
        main(["plan", *given, *LOCALHOST, "--nftables-layout", "kube-proxy", "--observed", "none"])
    assert "--nftables-extra localhost-node-ports needs --nftables-layout flat" in capsys.readouterr().err
    dump = ("--observed", str(world / "nftables.json"))
    assert tables_of_plan(capsys, *LOCALHOST, *dump) == {("add", "rulegen"), ("delete", "kube-proxy")}
