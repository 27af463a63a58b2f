"""The addresses that objects of a tenant may not use, for Services and Ingresses.

`rulegen.net.refusal` rejects ranges in which no host of a cluster has an address. This module adds addresses of this
node, of the cluster and of the cloud. They are a value, made from facts of the host and from objects.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.names import ObjectName
from rulegen.net import Address, AddressUse, Family, Network, family_of, parse_address, parse_network, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.kube.objects import structs
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.host.facts import HostFacts

KUBERNETES: Final = ObjectName("default", "kubernetes")
"""The Service whose endpoints are the API servers. The API servers write these endpoints."""

METADATA: Final[Mapping[Address, str]] = MappingProxyType(
    {
        parse_address(text): cloud
        for text, cloud in {
            "100.100.100.200": "Alibaba Cloud",
            "168.63.129.16": "Azure",
            "192.0.0.192": "Oracle Cloud",
            "fd00:ec2::254": "AWS",
            "fd00:ec2::23": "AWS (EKS Pod Identity)",
            "fd20:ce::254": "Google Cloud",
            "fd00:c1::a9fe:a9fe": "Oracle Cloud",
            "fd00:42::42": "Scaleway",
        }.items()
    }
)
"""Addresses of clouds' metadata servers, which return credentials of the machine; without link-local addresses."""

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"))
"""Prefixes of NAT64 (RFC 6052, section 2.1) and 6to4 (RFC 3056): packets are sent to the embedded IPv4 address."""
_RANGES_ALONE: Final = frozenset({AddressUse.ENDPOINT, AddressUse.CLUSTER_IP})
_NODE_IS_REFUSED: Final = frozenset({AddressUse.UPSTREAM, AddressUse.EXTERNAL_IP})
_NETWORK_IS_REFUSED: Final = frozenset({AddressUse.EXTERNAL_IP, AddressUse.LOAD_BALANCER_IP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """Addresses of the node, the cluster and the cloud that tenants may not use.

    Attributes:
        own: The node's own addresses, from its interfaces and its Node object; without those of `kube-ipvs0`.
        gateways: The next hops of the node's default routes.
        api_servers: Address and port of each API server.
        pod_networks: The known prefixes of Pod addresses.
        allowed: Prefixes that upstreams of Ingresses may use nevertheless. Ranges of `rulegen.net.refusal` and nginx's
            own ports stay rejected.
        ports: The ports on which nginx of this node listens.
    """

    own: frozenset[Address] = frozenset()
    gateways: frozenset[Address] = frozenset()
    api_servers: frozenset[tuple[Address, int]] = frozenset()
    pod_networks: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    _single: frozenset[Address] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect all single addresses in one set, for a fast check: nearly all addresses are not in it."""
        servers = (address for address, _ in self.api_servers)
        object.__setattr__(self, "_single", self.own.union(self.gateways, servers, METADATA))

    def refusal(self, address: Address, use: AddressUse, port: int = 0) -> str:
        """Return why an address may not be used, such as `192.0.2.1 is an address of this node`; empty if it may.

        | use | rejected in addition to the ranges of `rulegen.net.refusal` |
        |---|---|
        | upstream of an Ingress | addresses of the node, gateways, API servers, metadata servers |
        | external IP | the same, and addresses of Pods |
        | load balancer IP | gateways, API servers, metadata servers, addresses of Pods; not addresses of the node: load balancers that run on nodes publish them |
        | endpoint, ClusterIP | nothing: Pods in the host's network are endpoints, and the API server assigns ClusterIPs |

        Args:
            address: The address. For an IPv4-mapped IPv6 address, the IPv4 address is checked.
            use: What the address is used for.
            port: The port that is used with the address; 0 for all ports. If it is not 0, the address of an API server
                is rejected only with the API server's port.
        """  # noqa: E501 - a table has long lines
        address = getattr(address, "ipv4_mapped", None) or address
        fault = refusal(address, use)
        if fault or use in _RANGES_ALONE:
            return fault
        if self.allowed and use is AddressUse.UPSTREAM and any(_is_in(address, network) for network in self.allowed):
            is_loop = address in self.own and port in self.ports
            return f"{address} is an address of this node, and nginx listens on port {port}" if is_loop else ""
        if what := self._what(address, use, port):
            return f"{address} is {what}"
        arrives = _translated(address)
        return f"{address} leads to {fault}" if arrives and (fault := self.refusal(arrives, use, port)) else ""

    def _what(self, address: Address, use: AddressUse, port: int) -> str:
        if address in self._single:
            if use in _NODE_IS_REFUSED and address in self.own:
                return "an address of this node"
            if address in self.gateways:
                return "the gateway of this node"
            if any(known == address and port in {0, number} for known, number in self.api_servers):
                return "an address of the API server"
            if address in METADATA:
                return f"the metadata server of {METADATA[address]}"
        if use in _NETWORK_IS_REFUSED:
            for network in self.pod_networks:
                if _is_in(address, network):
                    return f"an address of the Pod network {network}"
        return ""

    def with_objects(
        self,
        node: structs.Node | None,
        kubernetes: ServiceInput | None = None,
        *,
        pod_networks: tuple[Network, ...] = (),
    ) -> Forbidden:
        """Return a copy with the addresses that objects contain.

        Args:
            node: The Node object, for its addresses and Pod CIDRs; None if there is none.
            kubernetes: The Service `KUBERNETES` with its endpoints; None if unknown.
            pod_networks: Other Pod networks, such as clusterCIDR of the configuration.
        """
        return replace(
            self,
            own=self.own.union(_addresses_of(node)),
            api_servers=self.api_servers.union(api_servers(kubernetes)),
            pod_networks=tuple(dict.fromkeys((*self.pod_networks, *_pod_networks(node), *pod_networks))),
        )


NOTHING: Final = Forbidden()
"""For an unknown node: rejects only the ranges of `rulegen.net.refusal` and metadata servers."""


def of_host(facts: HostFacts) -> Forbidden:
    """Return the addresses of the host's interfaces, without those of `kube-ipvs0`, and its gateways."""
    own = (address for family in Family for address in facts.addresses(family))
    return Forbidden(own=frozenset(own), gateways=facts.gateways)


def forbidden(
    facts: HostFacts,
    node: structs.Node | None,
    kubernetes: ServiceInput | None = None,
    *,
    pod_networks: tuple[Network, ...] = (),
) -> Forbidden:
    """Return the addresses that tenants may not use on one node; see `of_host` and `Forbidden.with_objects`."""
    return of_host(facts).with_objects(node, kubernetes, pod_networks=pod_networks)


def _addresses_of(node: structs.Node | None) -> Iterator[Address]:
    """Yield InternalIPs and ExternalIPs; skip invalid texts, which the decoder has already reported."""
    for known in node.status.addresses if node is not None else ():
        if known.type in {"InternalIP", "ExternalIP"}:
            with suppress(ValueError):
                yield parse_address(known.address)


def _pod_networks(node: structs.Node | None) -> Iterator[Network]:
    if node is not None:
        for text in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
            with suppress(ValueError):  # the decoder has already reported the invalid text
                yield parse_network(text)


def api_servers(kubernetes: ServiceInput | None) -> Iterator[tuple[Address, int]]:
    """Yield address and port of each API server, from the endpoints of the Service `KUBERNETES`."""
    for endpoint_slice in kubernetes.slices if kubernetes is not None else ():
        for endpoint in endpoint_slice.endpoints:
            for text in endpoint.addresses[:1]:
                with suppress(ValueError):  # invalid endpoints are reported where endpoints are resolved
                    address = parse_address(text)
                    yield from ((address, port.port) for port in endpoint_slice.ports if port.port)


def _translated(address: Address) -> IPv4Address | None:
    """Return the IPv4 address embedded in a NAT64 or 6to4 address; None for other addresses."""
    if not isinstance(address, IPv6Address):
        return None
    nat64, six_to_four = _TRANSLATED
    if address in nat64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return IPv4Address(int(address) >> 80 & 0xFFFFFFFF) if address in six_to_four else None


def _is_in(address: Address, network: Network) -> bool:
    return family_of(address) is family_of(network) and address in network
