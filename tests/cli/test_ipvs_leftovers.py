"""What a Service leaves behind in ipvs mode is under its own heading as long as it is there, and else a leftover."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from rulegen.cli.main import main
from tests.cli.test_plan import HOST

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "game", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.10",
        "externalIPs": ["192.0.2.77"],
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.99"}]}},
}
OTHER = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "other", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}]},
}


def slice_of(name: str, *addresses: str) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": "node1"} for address in addresses],
        "ports": [{"name": "http", "port": 8080}],
    }


@pytest.fixture
def gone(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Return what a plan takes away: the Service that each object is of, and whether it is a leftover."""
    monkeypatch.chdir(tmp_path)
    Path("host").write_text(HOST)

    def run(verb: str, objects: list[dict], *words: str) -> str:
        Path("objects").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        with pytest.raises(SystemExit) as stop:
            main([verb, "-f", "objects", "--host", "host", "--mode", "ipvs", *words])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return printed.out

    def plan(before: list[dict], after: list[dict]) -> set[tuple[str | None, bool]]:
        run("export", before, "-o", "before")
        changes = json.loads(run("plan", after, "--observed", "before", "-o", "json"))["changes"]
        deleted = [
            change
            for change in changes
            if change["action"] == "delete" and change["language"] in {"ipvs", "ipset", "links"}
        ]
        assert deleted
        return {(change["service"], change["leftover"]) for change in deleted}

    return plan


def changed(**spec: object) -> dict:
    service = copy.deepcopy(SERVICE)
    service["spec"].update(spec)
    return service


@pytest.mark.parametrize(
    "after",
    [
        changed(clusterIP="10.96.0.11"),
        changed(externalIPs=[]),
        changed(loadBalancerSourceRanges=[]),
        changed(ports=[{"name": "http", "port": 80, "nodePort": 30081}]),
        {**SERVICE, "status": {"loadBalancer": {"ingress": []}}},
        changed(type="ClusterIP", externalTrafficPolicy=None, loadBalancerSourceRanges=[]),
    ],
    ids=["ClusterIP", "external IP", "source ranges", "node port", "load balancer IP", "type"],
)
def test_what_a_changed_service_leaves_is_its_own(gone, after):
    rest = [slice_of("game", "10.244.1.5", "10.244.1.6"), OTHER, slice_of("other", "10.244.1.7")]
    assert gone([SERVICE, *rest], [after, *rest]) == {("shop/game", False)}


def test_what_a_service_that_is_gone_leaves_is_a_leftover(gone):
    rest = [OTHER, slice_of("other", "10.244.1.7")]
    assert gone([SERVICE, slice_of("game", "10.244.1.5"), *rest], rest) == {(None, True)}


def test_shared_endpoints_do_not_show_the_former_owner(gone):
    rest = [slice_of("game", "10.244.1.5"), OTHER, slice_of("other", "10.244.1.5")]
    assert gone([SERVICE, *rest], [changed(externalIPs=[]), *rest]) == {(None, True)}
