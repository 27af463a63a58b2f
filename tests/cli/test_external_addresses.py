"""`--external-ip-semantics` and `--ignore-external-ips`: what a plan of files and a host says, and has, with each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rulegen.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

OBJECTS = """\
apiVersion: v1
kind: Service
metadata: {name: old, namespace: demo, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ipFamilies: [IPv4]
  ports: [{name: http, port: 80, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: new, namespace: demo, creationTimestamp: "2026-02-01T00:00:00Z"}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.11
  clusterIPs: [10.96.0.11]
  ipFamilies: [IPv4]
  externalIPs: [192.168.50.1, 192.168.50.10, 203.0.113.7]
  ports: [{name: a, port: 30080}, {name: b, port: 10250}]
status: {loadBalancer: {ingress: [{ip: 192.168.50.10}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: new-1, namespace: demo, labels: {kubernetes.io/service-name: new}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.1]}]
ports: [{name: a, port: 80}, {name: b, port: 80}]
"""
HOST = """\
hostname: node1
interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]
gateways: [192.168.50.1]
root_ports: [TCP/10250]
ipv6: false
"""
HINT = "--external-ip-semantics strict ignores this address"


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "objects.yaml").write_text(OBJECTS)
    (tmp_path / "host.yaml").write_text(HOST)

    def call(*options: str) -> tuple[list[str], str]:
        given = ("-f", str(tmp_path / "objects.yaml"), "--host", str(tmp_path / "host.yaml"), "--observed", "none")
        with pytest.raises(SystemExit) as stop:
            main(["plan", *given, "--cluster-cidr", "10.244.0.0/16", "-o", "json", *options])
        assert not stop.value.code
        document = json.loads(capsys.readouterr().out)
        return [text for text in document["warnings"] if "demo/new" in text or "xternal" in text], json.dumps(
            document["changes"]
        )

    return call


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_by_default_all_is_served_and_a_warning_names_the_owner(plan, mode):
    warnings, text = plan("--mode", mode)
    assert all(address in text for address in ("192.168.50.1", "192.168.50.10", "203.0.113.7"))
    for words in (
        f"192.168.50.1 is the gateway of this node: {'ipvs mode binds this' if mode == 'ipvs' else 'connections'}",
        "192.168.50.10 is an address of this node: connections",
        "192.168.50.10 port 30080/TCP is the node port of the older Service demo/old on this node",
        "192.168.50.10 port 10250/TCP: the kubelet of this node listens there: demo/new gets its connections",
    ):
        assert len([warning for warning in warnings if words in warning]) == 1, words
    assert sum(HINT in warning for warning in warnings) == 2


@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
def test_with_strict_semantics_what_is_anothers_is_not_served(plan, mode):
    warnings, text = plan("--mode", mode, "--external-ip-semantics", "strict")
    assert "203.0.113.7" in text
    assert "192.168.50.1/32" not in text
    assert "192.168.50.10:10250" not in text
    assert ("192.168.50.10" in text) is (mode == "ipvs")  # where the older node port is a virtual server of its own
    assert (
        "Service demo/new: spec.externalIPs: 192.168.50.1 is the gateway of this node; the entry is ignored" in warnings
    )
    assert [w for w in warnings if "demo/old" in w and w.endswith("the older Service keeps it")]
    assert [w for w in warnings if "the kubelet of this node listens there: it is not served" in w]
    assert [w for w in warnings if "these are unknown" in w and "the API servers" in w]
    assert not [w for w in warnings if HINT in w]


def test_external_ips_are_ignored_if_asked(plan):
    warnings, text = plan("--ignore-external-ips")
    assert "spec.externalIPs of 1 Service are ignored, because of --ignore-external-ips" in warnings
    assert "203.0.113.7" not in text


def test_only_the_two_semantics_can_be_chosen(plan, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--external-ip-semantics", "loose"])
    assert "'loose' is not one of 'kube-proxy', 'strict'" in capsys.readouterr().err
