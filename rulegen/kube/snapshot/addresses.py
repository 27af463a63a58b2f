"""An index of Services by ClusterIP and external IP, updated with single changes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rulegen.kube.validation.service import HEADLESS
from rulegen.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Service

_Key = TypeVar("_Key", bound="Hashable")
_LEADING_ZERO: Final = re.compile(r"(?:^|\.)0[0-9]")


class _Holder(NamedTuple):
    """A Service with an external IP, and its ports."""

    service: ObjectName
    ports: frozenset[int]


@dataclass(slots=True)
class ServiceAddresses:
    """Services by ClusterIP, for endpoints of all namespaces, and by external IP, for endpoints of its own namespace.

    Addresses are texts in the spelling of `parse_address`. If several Services have an address, the first by name owns
    it.
    """

    _by_cluster_ip: dict[str, tuple[ObjectName, ...]] = field(default_factory=dict)
    _by_external_ip: dict[tuple[str, str], tuple[_Holder, ...]] = field(default_factory=dict)

    @classmethod
    def of_services(cls, services: Iterable[tuple[ObjectName, Service]]) -> ServiceAddresses:
        """Return the index of these Services."""
        addresses = cls()
        for name, service in services:
            addresses.change(name, None, service)
        return addresses

    def owner(self, namespace: str, address: str, port: int) -> ObjectName | None:
        """Return the Service that owns an address and port, for an endpoint in a namespace; None if there is none."""
        names = self._by_cluster_ip.get(address)
        if names is not None:
            return min(names)
        holders = self._by_external_ip.get((namespace, address))
        if holders is None:
            return None
        return min((holder.service for holder in holders if port in holder.ports), default=None)

    def changed_since(self, before: ServiceAddresses) -> set[str]:
        """Return the addresses for which `owner` may answer otherwise than in an earlier index."""
        changed = _changed(before._by_cluster_ip, self._by_cluster_ip)
        changed.update(address for _, address in _changed(before._by_external_ip, self._by_external_ip))
        return changed

    def change(self, name: ObjectName, before: Service | None, after: Service | None) -> frozenset[str]:
        """Apply a change of one Service; return the addresses whose owner, or its ports, may have changed.

        Args:
            name: Its name.
            before: The previous state in this index; None if it was not present.
            after: The new state; None if it was deleted.
        """
        gone, come = _held(before), _held(after)
        if gone == come:
            return frozenset()
        if before is not None:
            self._remove(name, before)
        if after is not None:
            self._add(name, after)
        return frozenset(address for address, _ in gone ^ come)

    def copy(self) -> ServiceAddresses:
        """Return a copy that is independent of later changes."""
        return ServiceAddresses(self._by_cluster_ip.copy(), self._by_external_ip.copy())

    def _add(self, name: ObjectName, service: Service) -> None:
        for address in _cluster_ips(service):
            self._by_cluster_ip[address] = (*self._by_cluster_ip.get(address, ()), name)
        for address in _external_ips(service):
            key = (name.namespace, address)
            self._by_external_ip[key] = (*self._by_external_ip.get(key, ()), _Holder(name, _ports(service)))

    def _remove(self, name: ObjectName, service: Service) -> None:
        for address in _cluster_ips(service):
            if left := tuple(known for known in self._by_cluster_ip[address] if known != name):
                self._by_cluster_ip[address] = left
            else:
                del self._by_cluster_ip[address]
        for address in _external_ips(service):
            key = (name.namespace, address)
            if others := tuple(holder for holder in self._by_external_ip[key] if holder.service != name):
                self._by_external_ip[key] = others
            else:
                del self._by_external_ip[key]


def _changed(before: Mapping[_Key, object], after: Mapping[_Key, object]) -> set[_Key]:
    changed = {key for key, holders in after.items() if before.get(key) != holders}
    return changed.union(before.keys() - after.keys())


def _held(service: Service | None) -> frozenset[tuple[str, frozenset[int] | None]]:
    """Return the addresses of a Service: ClusterIPs with None, external IPs with the Service's ports."""
    if service is None:
        return frozenset()
    held: set[tuple[str, frozenset[int] | None]] = {(address, None) for address in _cluster_ips(service)}
    if service.spec.external_ips:
        ports = _ports(service)
        held.update((address, ports) for address in _external_ips(service))
    return frozenset(held)


def _cluster_ips(service: Service) -> frozenset[str]:
    spec = service.spec
    return frozenset(_parsed(spec.cluster_ips or (spec.cluster_ip,)))


def _external_ips(service: Service) -> frozenset[str]:
    return frozenset(_parsed(service.spec.external_ips))


def _ports(service: Service) -> frozenset[int]:
    return frozenset(port.port for port in service.spec.ports)


def _parsed(texts: Iterable[str]) -> Iterator[str]:
    """Yield addresses in the spelling of `parse_address`; skip empty and invalid texts, and `None` (headless)."""
    for text in texts:
        if ":" in text or _LEADING_ZERO.search(text):
            with suppress(ValueError):
                yield str(parse_address(text))
        elif text and text != HEADLESS:
            yield text
