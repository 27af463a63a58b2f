"""Which addresses an object of a tenant may not name, and why: one list for Services and Ingresses.

`rulegen.net.refusal` judges by range alone: no host of a cluster has such an address. The list here adds what belongs
to this node, to the cluster and to the cloud below it. It is a value, made once of facts and objects.
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
"""The Service whose endpoints are the API servers; they write it themselves."""

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
"""Addresses at which clouds tell a machine its credentials, as far as they are not link-local ones."""

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"))
"""NAT64 (RFC 6052, 2.1) and 6to4 (RFC 3056): the IPv4 address in such an address is where packets arrive."""
_RANGES_ALONE: Final = frozenset({AddressUse.ENDPOINT, AddressUse.CLUSTER_IP})
_NODE_IS_REFUSED: Final = frozenset({AddressUse.UPSTREAM, AddressUse.EXTERNAL_IP})
_NETWORK_IS_REFUSED: Final = frozenset({AddressUse.EXTERNAL_IP, AddressUse.LOAD_BALANCER_IP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """What of the node, the cluster and the cloud no tenant may name.

    Attributes:
        own: The node's own addresses, of its interfaces and its Node object; none of `kube-ipvs0`.
        gateways: The node's next hops to everywhere else.
        api_servers: Address and port of each API server.
        pod_networks: What Pods get their addresses from, as far as it is known.
        allowed: Prefixes that upstreams of Ingresses may have all the same; addresses of ranges that no host has, and
            nginx's own ports, stay rejected.
        ports: Those that nginx of this node listens on.
    """

    own: frozenset[Address] = frozenset()
    gateways: frozenset[Address] = frozenset()
    api_servers: frozenset[tuple[Address, int]] = frozenset()
    pod_networks: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    _single: frozenset[Address] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect all single addresses: nearly every address that is judged is none of them."""
        servers = (address for address, _ in self.api_servers)
        object.__setattr__(self, "_single", self.own.union(self.gateways, servers, METADATA))

    def refusal(self, address: Address, use: AddressUse, port: int = 0) -> str:
        """Return why an address may not be used so, as `192.0.2.1 is an address of this node`; empty if it may.

        | use | rejected beside the ranges of `rulegen.net.refusal` |
        |---|---|
        | upstream of an Ingress | the node's own, gateways, API servers, metadata |
        | external IP | the same, and addresses of Pods |
        | load balancer IP | gateways, API servers, metadata, addresses of Pods: load balancers that run on the nodes publish a node's address |
        | endpoint, ClusterIP | nothing: Pods of the host's network are endpoints, and the API server assigns ClusterIPs |

        Args:
            address: The address; of an IPv4-mapped one, the IPv4 address is judged.
            use: What for.
            port: The port that goes with it; 0 for any. With a port, an API server is rejected at its port alone.
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
        """Return the same with what objects say.

        Args:
            node: The Node object, if there is one: its addresses, and the CIDRs of its Pods.
            kubernetes: The Service `KUBERNETES` with its endpoints, if it is known.
            pod_networks: Further networks of Pods, as clusterCIDR of the configuration.
        """
        return replace(
            self,
            own=self.own.union(_addresses_of(node)),
            api_servers=self.api_servers.union(api_servers(kubernetes)),
            pod_networks=tuple(dict.fromkeys((*self.pod_networks, *_pod_networks(node), *pod_networks))),
        )


NOTHING: Final = Forbidden()
"""Where nobody knows what the node is: ranges and metadata servers alone."""


def of_host(facts: HostFacts) -> Forbidden:
    """Return what belongs to a host: the addresses of its interfaces, but for the IPVS mode's, and its gateways."""
    own = (address for family in Family for address in facts.addresses(family))
    return Forbidden(own=frozenset(own), gateways=facts.gateways)


def forbidden(
    facts: HostFacts,
    node: structs.Node | None,
    kubernetes: ServiceInput | None = None,
    *,
    pod_networks: tuple[Network, ...] = (),
) -> Forbidden:
    """Return what no tenant of a cluster may name on one node; see `of_host` and `Forbidden.with_objects`."""
    return of_host(facts).with_objects(node, kubernetes, pod_networks=pod_networks)


def _addresses_of(node: structs.Node | None) -> Iterator[Address]:
    """Yield InternalIPs and ExternalIPs; the decoder has warned of a text that is no address."""
    for known in node.status.addresses if node is not None else ():
        if known.type in {"InternalIP", "ExternalIP"}:
            with suppress(ValueError):
                yield parse_address(known.address)


def _pod_networks(node: structs.Node | None) -> Iterator[Network]:
    if node is not None:
        for text in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
            with suppress(ValueError):  # the decoder has warned of it
                yield parse_network(text)


def api_servers(kubernetes: ServiceInput | None) -> Iterator[tuple[Address, int]]:
    """Yield address and port of each API server, as the Service `KUBERNETES` tells them."""
    for endpoint_slice in kubernetes.slices if kubernetes is not None else ():
        for endpoint in endpoint_slice.endpoints:
            for text in endpoint.addresses[:1]:
                with suppress(ValueError):  # it is no endpoint then, and anyone who reads endpoints warns of it
                    address = parse_address(text)
                    yield from ((address, port.port) for port in endpoint_slice.ports if port.port)


def _translated(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that a translator would send to, if the address is of such a kind."""
    if not isinstance(address, IPv6Address):
        return None
    nat64, six_to_four = _TRANSLATED
    if address in nat64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return IPv4Address(int(address) >> 80 & 0xFFFFFFFF) if address in six_to_four else None


def _is_in(address: Address, network: Network) -> bool:
    return family_of(address) is family_of(network) and address in network
