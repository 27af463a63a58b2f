"""What `export` writes in ipvs mode loads as it is into a kernel, and a plan against it then holds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rulegen.host.commands.runner import run
from rulegen.host.ipvs import servers
from tests.host.conftest import namespace
from tests.host.netfilter.test_export_loads import assert_empty, inputs, rulegen, save, shell

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["namespace"]

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs"), pytest.mark.usefixtures("namespace")]


@pytest.mark.parametrize("semantics", ["kube-proxy", "strict"])
def test_an_export_of_ipvs_mode_loads_as_it_is(
    tmp_path: Path, semantics: str, capsys: pytest.CaptureFixture[str]
) -> None:
    servers.load(run)
    reported = inputs(tmp_path, "ipvs", "--ipvs-semantics", semantics)
    out = tmp_path / "out"
    assert rulegen("export", *reported, "-o", str(out)) == 0
    shell("ipset restore < ipset.save", out)
    shell("iptables-legacy-restore < iptables.save; ip6tables-legacy-restore < ip6tables.save", out)
    shell("sysctl -q -p sysctl.conf; ipvsadm -R < ipvsadm.save; ip -batch kube-ipvs0.batch", out)
    saved = tmp_path / "saved"
    save("legacy", saved)
    tools = {
        "ipset.save": "ipset save",
        "ipvsadm.save": "ipvsadm -Sn",
        "kube-ipvs0.addr": "ip -br addr show kube-ipvs0",
        "sysctl.conf": "sysctl -a 2>/dev/null | grep -F net.ipv4",
    }
    for name, tool in tools.items():
        (saved / name).write_text(shell(tool, out))
    assert_empty(capsys, *reported, "--observed", str(saved))
    assert_empty(capsys, *reported, "--observed", str(out))
