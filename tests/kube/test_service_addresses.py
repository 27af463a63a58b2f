"""An index of addresses that is updated with changes equals one built from all Services."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.addresses import ServiceAddresses

NAMES = [ObjectName(namespace, name) for namespace in ("one", "two") for name in ("a", "b", "c")]
TEXTS = ("10.96.0.1", "10.96.0.2", "fd00::1", "fd00:0::1", "010.96.0.1", "x", "")
PORTS = (80, 443)

services = st.builds(
    lambda cluster_ips, external_ips, ports: k.Service(
        metadata=k.ObjectMeta(name="any"),
        spec=k.ServiceSpec(
            cluster_ip=cluster_ips[0] if cluster_ips else "None",
            cluster_ips=tuple(cluster_ips),
            external_ips=tuple(external_ips),
            ports=tuple(k.ServicePort(port=port) for port in ports),
        ),
    ),
    st.lists(st.sampled_from(TEXTS), max_size=2),
    st.lists(st.sampled_from(TEXTS), max_size=3),
    st.lists(st.sampled_from(PORTS), max_size=2),
)


def owners(addresses: ServiceAddresses) -> dict[tuple[str, str, int], ObjectName | None]:
    return {
        (namespace, text, port): addresses.owner(namespace, text, port)
        for namespace in ("one", "two")
        for text in ("10.96.0.1", "10.96.0.2", "fd00::1", "8.96.0.1", "None", "x")
        for port in PORTS
    }


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), services)), max_size=12))
def test_an_updated_index_has_the_owners_of_a_new_one(changes):
    """Each address whose owner has changed is in the result of the change."""
    known: dict[ObjectName, k.Service] = {}
    addresses = ServiceAddresses()
    for name, after in changes:
        was, shared = owners(addresses), addresses.copy()
        named = addresses.change(name, known.pop(name, None), after)
        if after is not None:
            known[name] = after
        now = owners(addresses)
        assert now == owners(ServiceAddresses.of_services(known.items()))
        assert {key[1] for key in was if was[key] != now[key]} <= named
        assert owners(shared) == was


def test_the_first_service_by_name_owns_a_shared_address():
    addresses = ServiceAddresses()
    service = k.Service(metadata=k.ObjectMeta(name="any"), spec=k.ServiceSpec(cluster_ip="10.96.0.1"))
    for name in reversed(NAMES):
        addresses.change(name, None, service)
    assert addresses.owner("two", "10.96.0.1", 80) == NAMES[0]
