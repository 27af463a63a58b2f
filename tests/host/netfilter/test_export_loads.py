"""What `export` writes loads as it is into an empty kernel, file by file, and a plan against it then holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.host.files.output import COMPANIONS
from rulegen.host.netfilter.variant import Variant
from rulegen.host.routing.routes import observe
from rulegen.languages.routes.state import format_routes
from rulegen.model.services.node.context import PROXY_TABLE
from tests.host.conftest import namespace

__all__ = ["namespace"]

OBJECTS = """\
apiVersion: v1
kind: Node
metadata: {name: node1}
status: {addresses: [{type: InternalIP, address: 192.168.50.10}, {type: InternalIP, address: "fd00:50::10"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::a"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  externalTrafficPolicy: Local
  healthCheckNodePort: 30900
  sessionAffinity: ClientIP
  externalIPs: [192.0.2.9]
  loadBalancerSourceRanges: [198.51.100.0/24, "2001:db8::/32"]
  ports:
  - {name: http, port: 80, nodePort: 30080}
  - {name: dns, port: 53, nodePort: 30053, protocol: UDP}
status: {loadBalancer: {ingress: [{ip: 203.0.113.7}, {ip: "2001:db8:1::7"}]}}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: shop}
spec: {type: NodePort, clusterIP: 10.96.0.11, clusterIPs: [10.96.0.11], ports: [{port: 80, nodePort: 30081}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.1], nodeName: node1}, {addresses: [10.244.2.2], nodeName: node2}]
ports: [{name: http, port: 8080}, {name: dns, port: 5353, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ["fd00:10:244::1"], nodeName: node1}]
ports: [{name: http, port: 8080}, {name: dns, port: 5353, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
"""
HOST = """\
host:
  hostname: node1
  interfaces: [{name: eth0, addresses: [192.168.50.10/24, "fd00:50::10/64"]}]
  nfacct: true
"""
NFACCT = """\
#!{python}
import sys
from rulegen.host.netfilter import nfacct
word, name = sys.argv[1:]
if word == "add":
    sys.exit(not nfacct.ensure([name]))
sys.exit(name not in nfacct.counters())
"""
"""The tool nfacct, of which few hosts have the package: it makes the counters of the real kernel."""


def rulegen(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def inputs(folder: Path, mode: str, *more: str) -> tuple[str, ...]:
    (folder / "objects.yaml").write_text(OBJECTS)
    (folder / "host.yaml").write_text(HOST)
    cidrs = ("--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56")
    files = ("-f", str(folder / "objects.yaml"), "--host", str(folder / "host.yaml"))
    return (*files, "--node", "node1", "--mode", mode, *cidrs, *more)


def shell(command: str, folder: Path) -> str:
    ended = subprocess.run(["sh", "-ec", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


def save(prefix: str, folder: Path) -> None:
    folder.mkdir()
    for name in ("iptables", "ip6tables"):
        tool = name.replace("tables", f"tables-{prefix}")
        (folder / f"{name}.save").write_text(shell(f"{tool}-save", folder))


def assert_empty(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    capsys.readouterr()
    code = rulegen("plan", *arguments, "--detailed-exitcode")
    out = capsys.readouterr().out
    assert code == 0, out


@pytest.mark.parametrize("nfacct", [(), ("--nfacct", "on"), ("--nfacct", "off")], ids=["default", "on", "off"])
@pytest.mark.usefixtures("namespace")
def test_an_export_of_iptables_mode_loads_as_it_is(tmp_path, variant: Variant, nfacct, capsys):
    arguments = inputs(tmp_path, "iptables", *nfacct)
    out = tmp_path / "out"
    assert rulegen("export", *arguments, "-o", str(out)) == 0
    assert (out / "nfacct.sh").exists() is (nfacct == ("--nfacct", "on"))
    if (out / "nfacct.sh").exists():
        tool = tmp_path / "bin" / "nfacct"
        tool.parent.mkdir()
        tool.write_text(NFACCT.format(python=sys.executable))
        tool.chmod(0o755)
        for _ in range(2):  # the counters are there the second time
            shell(f"PATH={tool.parent}:$PATH sh nfacct.sh", out)
    shell(f"iptables-{variant}-restore < iptables.save; ip6tables-{variant}-restore < ip6tables.save", out)
    if os.access("/proc/sys/net/ipv4/conf/all/route_localnet", os.W_OK):
        shell("grep -v nf_conntrack sysctl.conf | sysctl -q -p -", out)
    save(variant, tmp_path / "saved")
    assert_empty(capsys, *arguments, "--observed", str(tmp_path / "saved"))
    assert_empty(capsys, *arguments, "--observed", str(out))


@pytest.mark.usefixtures("namespace")
def test_an_export_of_userspace_mode_loads_as_it_is(tmp_path, variant: Variant, capsys):
    arguments = inputs(tmp_path, "userspace", "--nfacct", "off")
    out = tmp_path / "out"
    assert rulegen("export", *arguments, "-o", str(out)) == 0
    shell(f"iptables-{variant}-restore < iptables.save; ip6tables-{variant}-restore < ip6tables.save", out)
    shell("xargs -L 1 ip < policy.routes", out)
    save(variant, tmp_path / "saved")
    (tmp_path / "saved" / "policy.routes").write_text(format_routes(observe(PROXY_TABLE)))
    assert_empty(capsys, *arguments, "--observed", str(tmp_path / "saved"))
    assert_empty(capsys, *arguments, "--observed", str(out))


@pytest.mark.parametrize("mode", ["iptables", "ipvs", "nftables", "userspace"])
@pytest.mark.parametrize("nfacct", ["auto", "on"])
def test_of_an_export_every_file_is_known_and_none_is_spoken_of(tmp_path, mode, nfacct, capsys):
    arguments = inputs(tmp_path, mode, "--nfacct", nfacct)
    out = tmp_path / "out"
    assert rulegen("export", *arguments, "-o", str(out), "--nginx", str(out)) == 0
    capsys.readouterr()
    assert rulegen("plan", *arguments, "--observed", str(out)) == 0
    shown = capsys.readouterr().out
    assert "No changes" in shown
    assert not any(path.name in shown for path in out.iterdir() if path.name != "out"), shown


@pytest.mark.parametrize("mode", ["iptables", "ipvs", "userspace"])
@pytest.mark.parametrize("names_files", [False, True], ids=["folder", "each file"])
def test_an_export_without_parameters_names_no_sysctl_file(tmp_path, mode, names_files, capsys):
    arguments = inputs(tmp_path, mode)
    out = tmp_path / "out"
    assert rulegen("export", *arguments, "-o", str(out)) == 0
    (out / "sysctl.conf").write_text("")
    observed = sorted(map(str, out.iterdir())) if names_files else [str(out)]
    capsys.readouterr()
    assert rulegen("plan", *arguments, *(word for path in observed for word in ("--observed", path))) == 0
    shown = capsys.readouterr().out
    assert "No changes" in shown
    assert "was ignored" not in shown, shown


def test_in_a_folder_of_others_such_files_are_named(tmp_path, capsys):
    arguments = inputs(tmp_path, "iptables")
    out = tmp_path / "out"
    rulegen("export", *arguments, "-o", str(out))
    for name in ("iptables.save", "ip6tables.save"):
        path = out / name
        path.write_text(path.read_text().partition("\n")[2])
    capsys.readouterr()
    rulegen("plan", *arguments, "--observed", str(out))
    assert "model.json is not a dump" in capsys.readouterr().out
    assert "model.json" in COMPANIONS
