"""Lists of the API server: what is asked for, how trouble is sat out, and how it is told."""

from __future__ import annotations

import threading

import pytest

from rulegen.apiserver.lists import read_cluster, read_named
from rulegen.apiserver.transport import client
from rulegen.errors import HostError, Rejected, Warnings
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Secret
from rulegen.kube.validation.secret import secret_values
from tests.apiserver.answers import endpoint_slice, names, service
from tests.fakes.faults import Fault

pytestmark = pytest.mark.usefixtures("alone")


def test_reads_services_slices_and_the_node(api, tmp_path):
    api.put("services", service("web"))
    api.put("endpointslices", endpoint_slice("web-x", "web"))
    api.put("nodes", {"metadata": {"name": "worker1"}}, {"metadata": {"name": "worker2"}})

    objects = read_cluster(api.kubeconfig(tmp_path), node="worker1")

    assert names(objects) == ["web", "web-x", "worker1"]
    assert {each.source for each in objects} == {api.url}


def test_asks_as_kube_proxy_does(api, tmp_path):
    api.put("services", service("web"), service("headless", cluster_ip="None"))
    api.put("services", service("other", labels={"service.kubernetes.io/service-proxy-name": "other"}))
    api.put("endpointslices", endpoint_slice("web-x", "web"), endpoint_slice("other-x", "other"))
    api.put("endpointslices", endpoint_slice("web-h", "web", labels={"service.kubernetes.io/headless": ""}))

    assert names(read_cluster(api.kubeconfig(tmp_path))) == ["web", "web-x"]


def test_old_servers_know_no_field_selector(api, tmp_path):
    api.knows_field_selectors = False
    api.put("services", service("web"), service("headless", cluster_ip="None"))

    assert names(read_cluster(api.kubeconfig(tmp_path))) == ["headless", "web"]  # the model leaves headless ones out


def test_without_ranges_of_cluster_ips_all_else_is_read(api, tmp_path):
    api.put("services", service("web"))
    api.fail("servicecidrs", Fault.status(404, "not found"))
    warnings = Warnings()

    assert names(read_cluster(api.kubeconfig(tmp_path), service_cidrs=True, warnings=warnings)) == ["web"]

    assert "give them with --service-cidr" in "".join(warnings.texts())
    assert any(path.endswith("/servicecidrs") for path, _ in api.requests)


def test_pages_are_joined(api, tmp_path):
    expected = [f"web-{number:03}" for number in range(107)]
    api.put("services", *map(service, expected))

    assert names(read_cluster(api.kubeconfig(tmp_path), page_size=10)) == expected
    assert [query["limit"] for path, query in api.requests if path.endswith("/services")] == ["10"] * 11


def test_a_list_whose_token_expires_is_read_anew_and_whole(api, tmp_path):
    expected = [f"web-{number}" for number in range(5)]
    api.put("services", *map(service, expected))
    api.fail("services", None, None, Fault.status(410, "too old"))

    assert names(read_cluster(api.kubeconfig(tmp_path), page_size=2)) == expected
    assert api.requests[3][1]["limit"] == "8"
    assert "continue" not in api.requests[3][1]


def test_one_bad_object_harms_only_itself(api, tmp_path):
    api.put("services", service("bad", port=70000), service("good"))

    rejected, good = sorted(read_cluster(api.kubeconfig(tmp_path)), key=lambda each: not isinstance(each, Rejected))

    assert rejected.object == "Service shop/bad"
    assert "spec.ports[0].port" in rejected.lines()[0]
    assert names([good]) == ["good"]


def test_instead_of_a_missing_node_come_those_that_there_are(api, tmp_path):
    api.put("nodes", {"metadata": {"name": "worker2"}}, {"metadata": {"name": "worker3"}})

    assert names(read_cluster(api.kubeconfig(tmp_path), node="worker1")) == ["worker2", "worker3"]
    assert names(read_cluster(api.kubeconfig(tmp_path), node="worker2")) == ["worker2"]


def test_without_the_right_to_list_nodes_one_is_just_missing(api, tmp_path):
    api.put("nodes", {"metadata": {"name": "worker2"}})
    api.fail("nodes", None, Fault.status(403, "forbidden"))

    assert read_cluster(api.kubeconfig(tmp_path), node="worker1") == []


def test_a_list_of_nodes_that_fails_is_an_error(api, tmp_path):
    api.fail("nodes", None, *[Fault.status(500)] * 9)

    with pytest.raises(HostError):
        read_cluster(api.kubeconfig(tmp_path), node="worker1")


def test_a_node_name_stays_one_part_of_the_path(api, tmp_path):
    read_cluster(api.kubeconfig(tmp_path), node="../services?x=1")

    assert api.requests[-2][0] == "/api/v1/nodes/..%2Fservices%3Fx%3D1"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(429, "busy", retry_after=0),
        Fault.status(500, "etcd"),
        Fault.status(503),
        Fault.body(b'{"kind":"ServiceList","items":[', length=5000),
        Fault.hang_up(),
    ],
    ids=["429", "500", "503", "truncated", "hang-up"],
)
def test_passing_trouble_is_sat_out(api, tmp_path, fault):
    api.put("services", service("web"))
    api.fail("services", fault, fault)

    assert names(read_cluster(api.kubeconfig(tmp_path))) == ["web"]


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([Fault.status(500, "etcd is gone")] * 4, "the API server failed to list services (500: etcd is gone)"),
        ([Fault.status(429, retry_after=0)] * 4, "the API server is overloaded (429)"),
        ([Fault.status(401, "Unauthorized")], "the API server rejects the credentials (401: Unauthorized)"),
        ([Fault.status(403, "user x cannot")], "not allowed to list services (403: user x cannot)"),
        ([Fault.status(404)], "cannot list services (404)"),
        ([Fault.status(302)], "cannot list services (302)"),
        ([Fault.status(410, "gone")], "cannot list services (410: gone)"),
        ([Fault.body(b"<html>log in</html>")], "no ServiceList: JSON is malformed: invalid character (byte 0)"),
        ([Fault.body(b"{}")], "got '', expected a ServiceList"),
        ([Fault.body(b'{"kind":"Status"}')], "got 'Status', expected a ServiceList"),
        ([Fault.body(b'{"kind":"ServiceList","items":{}}')], "not a list of Service objects"),
        ([Fault.body(b"\xff\xfe")], "no ServiceList"),
        ([Fault.body(b"[" * 100_000)], "no ServiceList"),
        ([Fault.body(b"{", length=9)] * 4, "list services: the connection was closed early"),
        ([Fault.hang_up()] * 4, "list services: the connection was closed early"),
    ],
)
def test_lasting_trouble_is_one_line_and_never_an_empty_list(api, tmp_path, faults, expected):
    api.put("services", service("web"))
    api.fail("services", *faults)

    with pytest.raises(HostError) as caught:
        read_cluster(api.kubeconfig(tmp_path))

    assert caught.value.message.startswith(f"{api.url}: {expected}")
    assert "\n" not in caught.value.message


def test_trouble_in_the_middle_of_a_list_is_no_half_list(api, tmp_path):
    api.put("services", *(service(f"web-{number}") for number in range(5)))
    api.fail("services", None, Fault.status(403, "revoked"))

    with pytest.raises(HostError, match="not allowed to list services"):
        read_cluster(api.kubeconfig(tmp_path), page_size=2)


def test_the_same_page_again_and_again_ends(api, tmp_path):
    page = Fault.body(b'{"kind":"ServiceList","metadata":{"continue":"again"},"items":[]}')
    api.fail("services", page, page)

    with pytest.raises(HostError, match="the server sends the same page again and again"):
        read_cluster(api.kubeconfig(tmp_path))


def test_slices_and_node_may_be_forbidden_too(api, tmp_path):
    api.fail("endpointslices", Fault.status(403, "no"))
    with pytest.raises(HostError, match=r"not allowed to list endpointslices\.discovery\.k8s\.io"):
        read_cluster(api.kubeconfig(tmp_path))
    api.fail("nodes", Fault.status(403, "no"))
    with pytest.raises(HostError, match="not allowed to get nodes"):
        read_cluster(api.kubeconfig(tmp_path), node="worker1")


def test_a_server_that_falls_silent_is_left(api, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.2)
    released = threading.Event()
    api.fail("services", Fault.stall(released))

    with pytest.raises(HostError, match="no answer in time"):
        read_cluster(api.kubeconfig(tmp_path))
    released.set()


def test_nobody_at_that_address(api, tmp_path):
    kubeconfig = api.kubeconfig(tmp_path, server="http://127.0.0.1:1")

    with pytest.raises(HostError, match=r"http://127\.0\.0\.1:1: cannot be reached: .*refused") as caught:
        read_cluster(kubeconfig)
    assert "0x" not in caught.value.message


class TestIngress:
    @pytest.fixture(autouse=True)
    def _objects(self, api) -> None:
        backend = {"service": {"name": "web", "port": {"number": 80}}}
        api.put("services", service("headless", cluster_ip="None"), service("web"))
        api.put("services", service("other", labels={"service.kubernetes.io/service-proxy-name": "mesh"}))
        api.put("endpointslices", endpoint_slice("h-x", "headless", labels={"service.kubernetes.io/headless": ""}))
        api.put("ingresses", {"metadata": {"namespace": "shop", "name": "shop"}, "spec": {"defaultBackend": backend}})
        api.put("ingressclasses", {"metadata": {"name": "rulegen"}, "spec": {"controller": "rulegen.io/ingress"}})

    def test_ingresses_and_all_services_that_they_may_name_are_read(self, api, tmp_path):
        objects = read_cluster(api.kubeconfig(tmp_path), ingress=True)

        assert names(objects) == ["headless", "other", "web", "h-x", "shop", "rulegen"]

    def test_namespaces_are_read_where_their_labels_decide(self, api, tmp_path):
        api.put("namespaces", {"metadata": {"name": "shop", "labels": {"team": "a"}}})
        objects = read_cluster(api.kubeconfig(tmp_path), ingress=True, namespaces=True)

        assert names(objects)[-1] == "shop"

    def test_without_them_nothing_more_is_asked_for_than_before(self, api, tmp_path):
        assert names(read_cluster(api.kubeconfig(tmp_path))) == ["web"]
        assert [path.rpartition("/")[2] for path, _ in api.requests] == ["services", "endpointslices"]

    @pytest.mark.parametrize("noun", ["ingresses", "ingressclasses"])
    def test_a_missing_permission_is_reported(self, api, tmp_path, noun):
        api.fail(noun, Fault.status(403, "no"))

        with pytest.raises(HostError, match=rf"not allowed to list {noun}\.networking\.k8s\.io"):
            read_cluster(api.kubeconfig(tmp_path), ingress=True)

    def test_a_bad_ingress_harms_only_itself(self, api, tmp_path):
        api.put("ingresses", {"metadata": {"namespace": "shop", "name": "bad"}, "spec": {"rules": [{"host": "*"}]}})

        (rejected,) = (
            each for each in read_cluster(api.kubeconfig(tmp_path), ingress=True) if isinstance(each, Rejected)
        )

        assert rejected.lines()[0].startswith('Ingress shop/bad: spec.rules[0].host: "*" is not a valid host')


SHOP = ObjectName("shop", "tls")


class TestNamed:
    @pytest.fixture(autouse=True)
    def _objects(self, api) -> None:
        for space in ("other", "shop"):
            api.put(
                "secrets", {"metadata": {"namespace": space, "name": "tls"}, "data": {"tls.key": "c3VwZXJzZWNyZXQ="}}
            )
        api.put("configmaps", {"metadata": {"namespace": "shop", "name": "headers"}, "data": {"X-A": "b"}})

    def test_only_what_is_named_is_asked_for(self, api, tmp_path):
        objects = read_named(
            api.kubeconfig(tmp_path), secrets=[SHOP, SHOP], config_maps=[ObjectName("shop", "headers")]
        )

        assert names(objects) == ["tls", "headers"]
        assert isinstance(objects[0].object, Secret)
        assert secret_values(objects[0].object) == {"tls.key": b"supersecret"}
        assert [path for path, _ in api.requests] == [
            "/api/v1/namespaces/shop/secrets/tls",
            "/api/v1/namespaces/shop/configmaps/headers",
        ]

    def test_nothing_named_is_nothing_asked(self, tmp_path):
        assert read_named(str(tmp_path / "there-is-no-kubeconfig")) == []

    def test_what_is_not_there_is_not_there(self, api, tmp_path):
        warnings = Warnings()
        wanted = [SHOP, ObjectName("shop", "gone"), ObjectName("nowhere", "tls")]

        assert names(read_named(api.kubeconfig(tmp_path), secrets=wanted, warnings=warnings)) == ["tls"]
        assert warnings.texts() == ()

    @pytest.mark.parametrize(
        "name", [("..", "tls"), ("shop", ".."), ("shop", "a/../tls"), ("shop", "tls?x=1"), ("", "a")]
    )
    def test_what_can_be_no_name_leads_nowhere(self, api, tmp_path, name):
        assert read_named(api.kubeconfig(tmp_path), secrets=[ObjectName(*name)]) == []
        assert api.requests == []

    def test_what_is_forbidden_is_one_warning_that_names_the_right(self, api, tmp_path):
        warnings = Warnings()
        wanted = [ObjectName("other", name) for name in ("a", "b", "c", "d")]
        api.fail("secrets", *[Fault.status(403, "no")] * 4)

        objects = read_named(api.kubeconfig(tmp_path), secrets=[*wanted, SHOP], warnings=warnings)

        assert names(objects) == ["tls"]
        (lines,) = warnings.texts()
        assert lines.startswith(f"{api.url}: not allowed to get secrets in other: other/a, other/b, other/c and 1 more")
        assert 'this user needs a role there that allows "get" for "secrets"' in lines

    @pytest.mark.parametrize(
        ("faults", "expected"),
        [
            ([Fault.status(500, "etcd is gone")] * 4, r"failed to get secrets \(500: etcd is gone\)"),
            ([Fault.status(401)], "rejects the credentials"),
            ([Fault.body(b"<html>")], "no Secret: JSON is malformed"),
            ([Fault.body(b"{}")], "got '', expected a Secret"),
            ([Fault.body(b'{"kind":"ConfigMap"}')], "got 'ConfigMap', expected a Secret"),
            ([Fault.body(b'{"kind":"Secret","metadata":{"name":"x","namespace":"shop"}}')], "got another object"),
            ([Fault.hang_up()] * 4, "the connection was closed early"),
        ],
    )
    def test_other_trouble_is_one_clear_line(self, api, tmp_path, faults, expected):
        api.fail("secrets", *faults)

        with pytest.raises(HostError, match=expected):
            read_named(api.kubeconfig(tmp_path), secrets=[SHOP])

    def test_passing_trouble_is_sat_out(self, api, tmp_path):
        api.fail("secrets", Fault.status(503), Fault.hang_up())

        assert names(read_named(api.kubeconfig(tmp_path), secrets=[SHOP])) == ["tls"]

    def test_a_bad_secret_harms_only_itself_and_tells_no_value(self, api, tmp_path):
        api.put("secrets", {"metadata": {"namespace": "shop", "name": "bad"}, "data": {"key": "super secret!"}})

        rejected, _ = read_named(api.kubeconfig(tmp_path), secrets=[ObjectName("shop", "bad"), SHOP])

        assert rejected.lines() == ("Secret shop/bad: data.key: is not base64 (the value is not shown)",)
