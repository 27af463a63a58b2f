"""Which Services have which addresses: an index that follows changes says what a look at all Services says."""

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
def test_after_any_changes_all_owners_are_those_of_a_new_index(changes):
    """And an address whose owner changed is among those that the change names."""
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


def test_of_two_services_with_one_address_the_first_by_name_has_it():
    addresses = ServiceAddresses()
    service = k.Service(metadata=k.ObjectMeta(name="any"), spec=k.ServiceSpec(cluster_ip="10.96.0.1"))
    for name in reversed(NAMES):
        addresses.change(name, None, service)
    assert addresses.owner("two", "10.96.0.1", 80) == NAMES[0]
