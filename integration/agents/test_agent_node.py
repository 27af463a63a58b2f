"""`rulegen run` towards others: events, health checks, views, addresses, changed files, a node of kube-proxy."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import manifests
from integration.agent import SYSCTL, Node, network_namespace, tool, until
from integration.agents.test_agent import ONE, TWO
from integration.changes.test_takeover import PARITY, WORLDS
from integration.lab import topology
from integration.manifests import App
from rulegen.host.netfilter.nft_commits import generation
from rulegen.kube.reading.yaml_text import read_yaml
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("agent modes")

ADDRESSES = sorted(str(topology.address(topology.NODE, family)) for family in (4, 6))
HEALTH_PORT = 31999


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        yield Node(tmp_path_factory.mktemp("agent"), api)


def pod(host: str, app: App, *, is_ready: bool) -> dict[str, Any]:
    """Return a Pod of an App, as an API server prints it."""
    return {
        "metadata": {"namespace": "lab", "name": host, "labels": {"app": app.name, "pod": host}},
        "spec": {"nodeName": topology.PODS[host]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": str(topology.address(host, family))} for family in app.families],
            "conditions": [{"type": "Ready", "status": str(is_ready)}],
        },
    }


def get(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def events(node: Node, reason: str) -> list[dict[str, Any]]:
    return [entry for entry in node.api.kept("events").values() if entry["reason"] == reason]


def published(node: Node, collection: str, name: str) -> list[str]:
    status = node.api.kept(collection)["lab", name].get("status", {})
    return sorted(ingress["ip"] for ingress in status.get("loadBalancer", {}).get("ingress", []))


def test_events_report_drift_and_invalid_objects(node: Node) -> None:
    bad = {"metadata": {"namespace": "lab", "name": "bad", "uid": "u"}, "spec": {"clusterIP": "10.96.9.9", "ports": 5}}
    node.serve(TWO)
    node.api.put("services", bad)
    try:
        with node.running():
            until(lambda: bool(events(node, "Starting")), 5, "the beginning is told")
            until(lambda: bool(events(node, "Rejected")), 5, "faults are told")
            tool("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES")
            until(lambda: bool(events(node, "DriftMended")), 5, "damage is told")
            assert get("http://127.0.0.1:10249/metrics")[1].count('rulegen_events_total{outcome="sent"}') == 1
    finally:
        node.api.delete("services", "lab", "bad")
    (rejected,) = events(node, "Rejected")
    assert rejected["regarding"] == {
        "apiVersion": "v1", "kind": "Service", "namespace": "lab", "name": "bad", "uid": "u"
    }  # fmt: skip
    assert "spec.ports" in rejected["note"]
    drifted = events(node, "DriftMended")
    assert {event["metadata"]["namespace"] for event in drifted} == {"default"}
    assert {event["regarding"]["name"] for event in drifted} == {topology.NODE}


def test_a_pod_is_served_when_it_is_ready_and_not_before(node: Node) -> None:
    app = App(name="bare", number=811)
    node.serve(app)
    node.api.put("pods", pod("pod-a", app, is_ready=True), pod("pod-b", app, is_ready=False))
    try:
        with node.running("--endpoints", "pods"):
            assert node.rules.sends_to(app, "pod-a")
            node.api.put("pods", pod("pod-b", app, is_ready=True))
            until(lambda: node.rules.sends_to(app, "pod-a", "pod-b"), 5, "the Pod is served")
            node.api.put("pods", pod("pod-a", app, is_ready=False))
            until(lambda: node.rules.sends_to(app, "pod-b"), 5, "the other Pod is not served")
            assert not node.api.kept("endpointslices")
    finally:
        node.api.delete("pods", "lab", "pod-a")
        node.api.delete("pods", "lab", "pod-b")


def test_with_no_events_none_are_written(node: Node) -> None:
    node.serve(TWO)
    before = len(node.api.done)
    with node.running("--no-events"):
        tool("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES")
        until(lambda: bool(node.lines("changed by another program")), 5, "damage is logged")
    assert {done[0] for done in node.api.done[before:]} <= {"get", "list", "watch"}


def test_health_checks_count_local_endpoints_by_family(node: Node) -> None:
    asked = App(
        name="one",
        number=801,
        ready=("pod-a", "pod-x"),
        terminating=("pod-b",),
        type="LoadBalancer",
        external="Local",
        health_check_port=HEALTH_PORT,
    )
    node.serve(asked)
    with node.running():
        for host in ("127.0.0.1", "[::1]"):
            status, body, headers = get(f"http://{host}:{HEALTH_PORT}/anything")
            assert status == 200
            assert json.loads(body) == {
                "service": {"namespace": "lab", "name": "one"},
                "localEndpoints": 1,
                "serviceProxyHealthy": True,
            }
            assert headers["X-Load-Balancing-Endpoint-Weight"] == "1"
            assert headers["Content-Type"] == "application/json"
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert any(f"--dport {HEALTH_PORT} " in line for line in node.rules.lines("filter"))


def test_what_is_wanted_is_shown(node: Node) -> None:
    node.serve(ONE, TWO)
    with node.running("--metrics-host", "metrics.example"):
        assert "No changes." in get("http://127.0.0.1:10249/plan")[1]
        assert json.loads(get("http://127.0.0.1:10249/plan", Accept="application/json")[1])["changes"] == []
        assert "lab/two" in get("http://127.0.0.1:10249/model")[1]
        answer = json.loads(get("http://127.0.0.1:10249/rules?output=json")[1])
        assert "KUBE-SERVICES" in answer["rules"]["IPv4"]["nat"]
        metrics = get("http://127.0.0.1:10249/metrics")[1]
        assert 'kubeproxy_sync_proxy_rules_iptables_total{table="nat"}' in metrics
        for host, status in (("rebound.example", 421), (f"{topology.NODE}:10249", 200), ("metrics.example", 200)):
            assert get("http://127.0.0.1:10249/metrics", Host=host)[0] == status
        for page in ("plan", "model", "rules", "rules?output=json"):
            assert get(f"http://127.0.0.1:10249/{page}", Host="rebound.example")[0] == 403
            assert get(f"http://127.0.0.1:10249/{page}", **{"X-Forwarded-For": "192.0.2.1"})[0] == 403
        status, body, _ = get("http://127.0.0.1:10256/healthz", Host="rebound.example")
        assert (status, body) == (200, "")


def balanced() -> App:
    return App(name="lb", number=803, ready=("pod-a", "pod-x"), type="LoadBalancer", protocols=("TCP",))


def test_node_addresses_reach_services_without_endpoints(node: Node) -> None:
    service, *slices = balanced().documents()
    node.serve(TWO)
    metadata = {**service["metadata"], "uid": "u-lb"}
    node.api.put("services", {**service, "metadata": metadata, "status": {"loadBalancer": {}}})
    node.api.put("endpointslices", *slices)
    try:
        with node.running("--publish-service-status"):
            until(lambda: published(node, "services", "lb") == ADDRESSES, 10, "published")
            vip = f"-d {topology.address(topology.NODE, 4)}/32 -p tcp"
            until(lambda: any(vip in line and "--dport 80" in line for line in node.rules.lines()), 5, "served there")
        assert published(node, "services", "lb") == []
        assert "conditions" not in node.api.kept("services")["lab", "lb"]["status"] or (
            node.api.kept("services")["lab", "lb"]["status"]["conditions"] == []
        )
    finally:
        node.api.delete("services", "lab", "lb")


def test_a_changed_configuration_counts_and_a_broken_does_not(node: Node) -> None:
    node.serve(TWO)
    node.configure()
    with node.running() as process:
        good = node.config.read_text()
        node.config.write_text('{"kind": "KubeProxyConfig')
        until(lambda: bool(node.lines("the changed configuration is invalid and not used")), 10, "the fault is told")
        node.config.write_text(good)
        time.sleep(2.5)
        assert not node.lines("configuration reloaded")
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "1s"})
        until(lambda: bool(node.lines("configuration reloaded")), 10, "the change")
        until(lambda: node.is_well, 10, "a sync")
        SYSCTL.write_text("0")
        until(lambda: SYSCTL.read_text() == "1\n", 3, "the parameter, within the new period")
        assert process.poll() is None
    node.configure()


def test_connection_tracking_is_set_up_as_far_as_it_may_be(node: Node) -> None:
    node.serve(TWO)
    node.configure(conntrack={"tcpEstablishedTimeout": "12345s", "tcpCloseWaitTimeout": "1m", "maxPerCore": 4})
    root = Path("/proc/sys/net/netfilter")
    with node.running():
        until(lambda: (root / "nf_conntrack_tcp_timeout_established").read_text() == "12345\n", 5, "set")
        until(lambda: (root / "nf_conntrack_tcp_timeout_close_wait").read_text() == "60\n", 5, "set")
        until(lambda: bool(node.lines("nf_conntrack_max")), 5, "what may not be set here is told")
        assert node.is_well
    node.configure()


@pytest.mark.skipif(not WORLDS, reason=f"no dumps of kube-proxy in {PARITY} (RULEGEN_SHARED)")
@pytest.mark.parametrize("name", WORLDS[:2])
def test_a_node_of_kube_proxy_is_taken_over_without_a_write(node: Node, name: str, tmp_path: Path) -> None:
    folder = PARITY / name
    node.serve(TWO)
    assert node.start("--once").wait(20) == 0  # makes the counters that rules refer to
    for family, file in (("iptables", "iptables.save"), ("ip6tables", "ip6tables.save")):
        tool(f"{family}-nft-restore", stdin=(folder / file).read_text())
    with FakeApi() as api:
        for document in read_yaml((folder / "objects.yaml").read_bytes()):
            items = document.value["items"] if document.value["kind"] == "List" else [document.value]
            for item in items:
                collection = {"Service": "services", "EndpointSlice": "endpointslices", "Node": "nodes"}.get(
                    item["kind"]
                )
                if collection:
                    api.put(collection, item)
        there = Node(tmp_path, api)
        there.config.write_text((folder / "config.yaml").read_text())
        argv = there.argv("run", "--host", str(folder / "world.yaml"))
        del argv[argv.index("--node") : argv.index("--node") + 2]
        there.argv = lambda verb, *more: [*argv, *more]  # type: ignore[method-assign]
        before, at = there.rules.everything(), generation()
        with there.running():
            time.sleep(1)
            assert (there.rules.everything(), generation()) == (before, at)
        assert not there.lines("changed by another program") + there.lines(" written")


class TestIngress:
    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        if shutil.which("nginx") is None:
            pytest.skip("there is no nginx here")
        path = Path(tempfile.mkdtemp(prefix="rulegen-agent-", dir="/var/tmp"))
        path.chmod(0o755)
        yield path
        shutil.rmtree(path)

    @pytest.fixture
    def site(self, node: Node) -> Iterator[Node]:
        backend = {"service": {"name": "two", "port": {"number": 80}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        node.serve(TWO)
        node.api.put("ingressclasses", {"metadata": {"name": "rulegen"}, "spec": {"controller": "rulegen.io/ingress"}})
        for name, settings in (
            ("web", {}),
            ("odd", {"nginx.ingress.kubernetes.io/proxy-body-size": "a lot", "nginx.ingress.kubernetes.io/lua": "x"}),
            ("shut", {"nginx.ingress.kubernetes.io/whitelist-source-range": "nobody"}),
        ):
            node.api.put(
                "ingresses",
                {
                    "metadata": {"namespace": "lab", "name": name, "uid": f"u-{name}", "annotations": settings},
                    "spec": {
                        "ingressClassName": "rulegen",
                        "rules": [{"host": f"{name}.example", "http": {"paths": paths}}],
                    },
                },
            )
        yield node
        for namespace, name in node.api.kept("ingresses"):
            node.api.delete("ingresses", namespace, name)

    def argv(self, folder: Path) -> list[str]:
        ports = ["--http-port", "8080", "--https-port", "8443"]
        return ["--ingress", "--no-services", "--nginx-dir", str(folder / "nginx"), *ports]

    def test_an_ingress_is_served_published_and_drained(self, site: Node, folder: Path) -> None:
        with site.running(*self.argv(folder)) as process:
            until(lambda: published(site, "ingresses", "web") == ADDRESSES, 20, "published")
            assert get("http://127.0.0.1:8080/", Host="nobody.example")[0] == 404
            assert "Ingress: nginx does not need a reload" in get("http://127.0.0.1:10249/plan")[1]
            until(lambda: bool(events(site, "Ignored")), 5, "what means nothing is told")
            assert {event["regarding"]["kind"] for event in events(site, "Ignored")} == {"Ingress"}
            reloads = get("http://127.0.0.1:10249/metrics")[1].count("rulegen_nginx_reloads_total{")
            time.sleep(1)  # a status that was written is no reason to reload
            assert get("http://127.0.0.1:10249/metrics")[1].count("rulegen_nginx_reloads_total{") == reloads
            process.send_signal(signal.SIGTERM)
            until(lambda: process.poll() is not None, 20, "the end")
            assert "nginx drained" in site.log.read_text()
            with pytest.raises(urllib.error.URLError):
                get("http://127.0.0.1:8080/")
        assert [published(site, "ingresses", name) for name in ("web", "odd", "shut")] == [[], [], []]

    def test_once_ends_when_nginx_serves(self, site: Node, folder: Path) -> None:
        assert site.start(*self.argv(folder), "--once").wait(30) == 0, site.log.read_text()
        assert get("http://127.0.0.1:8080/", Host="nobody.example")[0] == 404
        assert published(site, "ingresses", "web") == []
        with site.running(*self.argv(folder)):
            pass
        assert site.lines("nginx drained")

    def test_with_keep_serving_nginx_outlives_the_agent(self, site: Node, folder: Path) -> None:
        with site.running(*self.argv(folder), "--keep-serving", "--no-update-status-on-shutdown"):
            until(lambda: published(site, "ingresses", "web") == ADDRESSES, 20, "published")
        assert get("http://127.0.0.1:8080/", Host="nobody.example")[0] == 404
        assert published(site, "ingresses", "web") == ADDRESSES
        with site.running(*self.argv(folder)):
            until(lambda: published(site, "ingresses", "web") == ADDRESSES, 20, "published")
            assert not site.lines("nginx started")
        assert site.lines("nginx drained")

    def test_restarted_without_a_server_it_keeps_its_certificates(self, site: Node, folder: Path) -> None:
        certificate, key = (entry.read_text() for entry in make_certificate(folder, "DNS:web.example"))
        content = {"tls.crt": certificate, "tls.key": key}
        data = {name: base64.b64encode(text.encode()).decode() for name, text in content.items()}
        kind = "kubernetes.io/tls"
        site.api.put("secrets", {"metadata": {"namespace": "lab", "name": "tls"}, "type": kind, "data": data})
        web = site.api.kept("ingresses")["lab", "web"]
        spec = {**web["spec"], "tls": [{"hosts": ["web.example"], "secretName": "tls"}]}
        site.api.put("ingresses", {**web, "spec": spec})
        wanted = ssl.PEM_cert_to_DER_cert(certificate)
        with site.running(*self.argv(folder)) as process:
            until(lambda: published(site, "ingresses", "web") == ADDRESSES, 20, "published")
            assert shown_certificate("web.example") == wanted
            site.api.go_away()
            try:
                process.send_signal(signal.SIGHUP)
                until(lambda: bool(site.lines("configuration reloaded")), 10, "begun anew")
                until(lambda: site.is_well, 5, "it is well")
                until(lambda: "ingressesNotServed" not in site.health()[1], 20, "decided without an answer")
                assert shown_certificate("web.example") == wanted
            finally:
                site.api.come_back()
            until(lambda: bool(site.metric("rulegen_lists_total")), 20, "listed")
            time.sleep(0.5)
            assert shown_certificate("web.example") == wanted
            assert not site.lines("nginx reloaded")
        site.api.delete("secrets", "lab", "tls")


def shown_certificate(host: str) -> bytes | None:
    """Return the certificate that nginx shows to who asks for a host."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", 8443), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        return connection.getpeercert(binary_form=True)
