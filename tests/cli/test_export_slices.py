"""`rulegen export --endpointslices`: to standard output or beside the rules, and never without Pods."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rulegen.cli.main import main

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {version: "1e3", answer: "yes"}}
spec: {clusterIP: 10.96.0.1, ipFamilies: [IPv4], selector: {app: web}, ports: [{port: 80, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: manual, namespace: shop}
spec: {clusterIP: 10.96.0.2, ipFamilies: [IPv4], ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: web-1}
status: {phase: Running, podIP: 10.244.0.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: EndpointSlice
metadata: {name: ignored, namespace: shop, labels: {kubernetes.io/service-name: manual}}
"""


@pytest.fixture
def manifests(tmp_path: Path) -> str:
    path = tmp_path / "objects.yaml"
    path.write_text(MANIFESTS.replace("v1\nkind: EndpointSlice", "discovery.k8s.io/v1\nkind: EndpointSlice"))
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["export", *arguments])
    return int(stop.value.code or 0)


def test_slices_are_printed_or_written_beside_the_rules(manifests, tmp_path, capsys):
    assert run("-f", manifests, "--endpointslices") == 0
    printed = capsys.readouterr().out
    (slice_,) = yaml.safe_load_all(printed)
    assert slice_["metadata"]["labels"] == {
        "version": "1e3",
        "answer": "yes",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert 'version: "1e3"' in printed  # a number for readers of YAML 1.2
    assert slice_["ports"] == [{"name": "", "port": 80, "protocol": "TCP", "appProtocol": "http"}]
    assert "ownerReferences" not in slice_["metadata"]

    folder = tmp_path / "out"
    for _ in range(2):
        assert run("-f", manifests, "--endpointslices", "-o", str(folder), "--node", "web-1") == 0
    assert (folder / "endpointslices.yaml").read_text() == printed
    assert (folder / "iptables.save").exists()


REFUSED = [
    ((), "needs files"),
    (("--no-services",), "exclude each other"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED)
def test_slices_are_refused_without_pods_or_services(manifests, capsys, more, said):
    files = ("-f", manifests) if more else ()
    assert run("--endpointslices", *files, *more) == 1
    assert said in capsys.readouterr().err
