"""`apply` where the kernel refuses one Service: it is told, the rest is written, and the exit code says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.cli.wiring import inputs, planning
from rulegen.host.commands.runner import Completed
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family
from tests.kernels.refusing import Tools

NODE = """\
apiVersion: v1
kind: Node
metadata: {name: node1}
status: {addresses: [{type: InternalIP, address: 192.168.50.10}]}
"""
HOST = """\
host:
  hostname: node1
  interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]
"""


def service(name: str, number: int, *, sticky: bool = False, ends: tuple[int, ...] = ()) -> str:
    affinity = "sessionAffinity: ClientIP" if sticky else "sessionAffinity: None"
    addresses = ", ".join(f"{{addresses: [10.244.1.{end}]}}" for end in ends or (number,))
    return f"""\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: demo, creationTimestamp: "2026-01-01T00:00:00Z"}}
spec:
  clusterIP: 10.96.0.{number}
  clusterIPs: [10.96.0.{number}]
  ipFamilies: [IPv4]
  {affinity}
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: demo, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{addresses}]
ports: [{{name: http, port: 8080}}]
"""


class Cluster:
    """Files and a host whose kernel refuses affinity."""

    def __init__(self, folder: Path, variant: Variant, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.variant, self.capsys = folder, variant, capsys
        self.tools = Tools(variant, refuses=lambda line: "-m recent" in line)
        (folder / "host").write_text(HOST)

    def apply(self, *services: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        (self.folder / "all.yaml").write_text(NODE + "".join(services))
        files = ("-f", "all.yaml", "--host", "host", "--variant", str(self.variant), "--nfacct", "off")
        with pytest.raises(SystemExit) as stop:
            main(["apply", *files, "--yes", *options])
        printed = self.capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    def ends(self) -> list[str]:
        nat = self.tools.kernels[Family.IPV4].tables["nat"]
        return sorted(rule.rpartition(" ")[2] for rules in nat.values() for rule in rules if "-j DNAT" in rule)


@pytest.fixture(params=list(Variant), ids=str)
def cluster(request, tmp_path, capsys, monkeypatch) -> Cluster:
    monkeypatch.chdir(tmp_path)
    made = Cluster(tmp_path, request.param, capsys)
    for module in (inputs, planning):
        monkeypatch.setattr(module, "run", made.tools)
    return made


def test_the_rest_is_written_and_the_rejected_one_is_named(cluster):
    code, out, err = cluster.apply(service("web", 1), service("shop", 9, sticky=True), service("zoo", 3))
    assert code == 1
    assert cluster.ends() == ["10.244.1.1:8080", "10.244.1.3:8080"]
    assert "Applied all but the rejected Services" in out
    assert "Service demo/shop: " in err
    assert "recent" in err
    assert "demo/web" not in err
    assert "fault of rulegen" not in err


def test_its_old_rules_stay_and_a_second_apply_changes_nothing(cluster):
    assert cluster.apply(service("web", 1), service("shop", 9))[0] == 0
    code, _, _ = cluster.apply(service("web", 2), service("shop", 9, sticky=True, ends=(10, 11)))
    assert code == 1
    assert cluster.ends() == ["10.244.1.2:8080", "10.244.1.9:8080"]
    before = cluster.tools.kernels[Family.IPV4].save()
    assert cluster.apply(service("web", 2), service("shop", 9, sticky=True, ends=(10, 11)))[0] == 1
    assert cluster.tools.kernels[Family.IPV4].save() == before


def test_json_names_what_was_left_out(cluster):
    code, out, _ = cluster.apply(service("web", 1), service("shop", 9, sticky=True), options=("-o", "json"))
    assert code == 1
    document = json.loads(out)
    assert list(document["leftOut"]) == ["demo/shop"]
    assert document["applied"]


def test_nothing_is_searched_for_where_the_lock_is_held(cluster):
    cluster.tools.ends.append(Completed(4, "", "Another app is currently holding the xtables lock"))
    code, _, err = cluster.apply(service("web", 1), service("shop", 9, sticky=True))
    assert code == 1
    assert "the xtables lock was not free" in err
    assert cluster.ends() == []
    assert len(cluster.tools.scripts) == 1


def test_an_apply_that_is_refused_nowhere_says_nothing_of_it(cluster):
    code, out, err = cluster.apply(service("web", 1))
    assert (code, cluster.ends()) == (0, ["10.244.1.1:8080"])
    assert "refuse" not in out + err
