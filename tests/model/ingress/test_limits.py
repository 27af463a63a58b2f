"""What one namespace may cost nginx: beyond a limit its oldest Ingresses are served, and others lose nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.model.ingress.ir import IngressModel
from rulegen.model.ingress.limits import UPSTREAM_SERVERS
from rulegen.model.ingress.options import IngressOptions
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.resolve import resolve_ingress
from rulegen.model.ingress.values.classes import Selection
from rulegen.net import Family
from tests.sizes import examples

PREFIX = "nginx.ingress.kubernetes.io"


def ingress(
    name: str, *hosts: str, namespace: str = "tenant", paths: int = 1, secret: str = "", **annotations: str
) -> k.Ingress:
    backend = k.IngressBackend(service=k.IngressServiceBackend(name="web", port=k.ServiceBackendPort(number=80)))
    paths_ = tuple(k.HTTPIngressPath(path=f"/{i}", path_type="Prefix", backend=backend) for i in range(paths))
    return k.Ingress(
        metadata=k.ObjectMeta(
            name=name,
            namespace=namespace,
            creation_timestamp=f"2026-01-01T00:00:{name[-2:]}Z",
            annotations={f"{PREFIX}/{key.replace('_', '-')}": value for key, value in annotations.items()},
        ),
        spec=k.IngressSpec(
            rules=tuple(k.IngressRule(host=host, http=k.HTTPIngressRuleValue(paths=paths_)) for host in hosts),
            tls=(k.IngressTLS(hosts=hosts, secret_name=secret),) if secret else (),
        ),
    )


def model(*ingresses: k.Ingress, most: int = 3, **given: object) -> IngressModel:
    world = ClusterSnapshot(
        ingresses={ObjectName(each.metadata.namespace, each.metadata.name): each for each in ingresses}, **given
    )
    selection = Selection(without_class=True)
    return resolve_ingress(world, IngressOptions(most_hosts=most, selection=selection, families=tuple(Family)))


def over(decisions: IngressModel) -> dict[str, str]:
    return {
        str(reason.about.name): reason.message for reason in decisions.reasons if reason.verdict is Verdict.OVER_LIMIT
    }


def test_the_oldest_ingresses_with_as_many_hosts_are_served():
    decisions = model(
        ingress("a-01", "a.test", "b.test"),
        ingress("b-02", "c.test", "d.test"),
        ingress("c-03", "e.test", "b.test"),
        ingress("d-04", "z.test", namespace="other"),
    )
    assert list(over(decisions)) == ["tenant/b-02"]
    assert "tenant has 4 hosts; the limit is 3 (--max-namespace-hosts)" in over(decisions)["tenant/b-02"]
    assert set(decisions.servers) == {"", "a.test", "b.test", "e.test", "z.test"}


def test_paths_text_certificates_and_aliases_count():
    assert over(model(ingress("a-01", "a.test", paths=12), ingress("b-02", "a.test")))
    assert over(model(ingress("a-01", "a.test", paths=4, proxy_body_size="1" * 2000)))
    assert over(model(ingress("a-01", "a.test", server_alias="b.test,c.test,d.test")))
    secret = k.Secret(metadata=k.ObjectMeta(name="s", namespace="tenant"), data={"tls.crt": "A" * 60_000})
    secrets = {ObjectName("tenant", "s"): secret}
    assert over(model(ingress("a-01", "a.test", secret="s"), secrets=secrets))
    assert not over(model(ingress("a-01", "a.test", secret="s"), secrets=secrets, most=4))


def test_of_too_many_endpoints_each_port_has_some_in_upstreams():
    slices = tuple(
        k.EndpointSlice(
            metadata=k.ObjectMeta(name=f"s{part}", namespace="tenant"),
            address_type="IPv4",
            endpoints=tuple(k.SliceEndpoint(addresses=(f"10.{part}.{i >> 8}.{i & 255}",)) for i in range(1, 1001)),
            ports=tuple(k.SlicePort(name=f"p{port}", port=port) for port in range(1, 11)),
        )
        for part in range(3)
    )
    ports = tuple(k.ServicePort(name=f"p{port}", port=79 + port) for port in range(1, 11))
    service = k.Service(
        metadata=k.ObjectMeta(name="web", namespace="tenant"),
        spec=k.ServiceSpec(cluster_ip="10.96.0.1", cluster_ips=("10.96.0.1",), ip_families=("IPv4",), ports=ports),
    )
    services = {ObjectName("tenant", "web"): ServiceInput(service=service, slices=slices)}
    decisions = model(ingress("a-01", "a.test"), services=services)
    (upstream,) = decisions.upstreams.values()
    assert len(upstream.servers) == UPSTREAM_SERVERS // 10
    assert any("30000 endpoints" in reason.message for reason in decisions.reasons)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True), max_size=5), st.integers(4, 40)
)
def test_a_namespace_over_its_limit_changes_no_server_of_another(others, count):
    mine = [ingress(f"o-{i:02}", *(f"{h}.test" for h in hosts), namespace="other") for i, hosts in enumerate(others)]
    flood = [ingress(f"f-{i:02}", f"{i}.flood", f"{i}.more") for i in range(count)]
    alone, beside = model(*mine, most=6), model(*mine, *flood, most=6)
    assert {host: replace(server) for host, server in beside.servers.items() if "test" in host} == {
        host: server for host, server in alone.servers.items() if "test" in host
    }
    assert sum("flood" in host or "more" in host for host in beside.servers) <= 6
