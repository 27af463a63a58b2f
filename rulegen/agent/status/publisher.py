"""Addresses, published in the status of what is served: one node writes, for all that serve.

Each node that serves says so by a Lease (`rulegen.agent.status.leases`); the one that leads writes the addresses of all
of them to the status of each Ingress, and if it is told to of each Service of type LoadBalancer that nobody else
serves. Whoever ends takes its own addresses out, the last one all.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from rulegen.agent.telemetry.log import fault
from rulegen.apiserver.objects import INGRESSES, MERGE_PATCH, SERVICES, STRATEGIC_PATCH, Resource
from rulegen.apiserver.transport.failures import ApiError
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.syntax import is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rulegen.agent.status.leases import LeaseGroup
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.kube.objects.structs import Ingress, LoadBalancerIngress, Node, Service
    from rulegen.kube.snapshot.world import ServiceInput

PERIOD_S: Final = 5.0
TRIES: Final = 3
"""Of one write, where somebody else writes the same object."""
SILENCE_S: Final = 300.0
"""How long nothing is written after it was forbidden."""
END_S: Final = 10.0
"""How long taking the addresses out may take at the end."""
PUBLISHED: Final = "rulegen.io/PublishedByNodes"
"""Type of the condition of a Service whose addresses are ours; its message is those addresses."""
EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of a Node to which no load balancer shall send."""

Entries = tuple[str, ...]
"""Addresses and names of hosts, in order, each once."""


class StatusChange(NamedTuple):
    """A status to write.

    Attributes:
        kind: Content type of the patch.
        entries: What it publishes.
    """

    resource: Resource
    name: ObjectName
    kind: str
    document: dict[str, Any]
    entries: Entries


class StatusSource(Protocol):
    """A kind of object whose status tells addresses."""

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield what is not as it should be, for the nodes that serve and their addresses."""

    def wrote(self, change: StatusChange) -> None:
        """Take note that the server has a change."""


class ServerReports(Protocol):
    """Reports troubles of the API server, each once for all who talk to it."""

    def failed(self, who: object, error: ApiError, wake: Callable[[], None]) -> bool:
        """Note what kept somebody from the server, and return whether that is reported here.

        Args:
            who: Who asked.
            error: What was in the way.
            wake: Called when the server answers again.
        """

    def went_well(self, who: object) -> None:
        """Note that the server did what somebody asked for."""


class _NoReports:
    """Reports nothing."""

    def failed(self, _who: object, _error: ApiError, _wake: Callable[[], None]) -> bool:
        """Leave it to the caller to report an error."""
        return False

    def went_well(self, _who: object) -> None:
        """Do nothing."""


@dataclass(slots=True)
class IngressPublication:
    """The status of Ingresses.

    Attributes:
        ingresses: Returns those of the cluster, as they are now.
        served: Returns the names of those that are ours, each with whether it is served; None before that is known.
    """

    ingresses: Callable[[], Mapping[ObjectName, Ingress]]
    served: Callable[[], Mapping[ObjectName, bool] | None]
    _written: dict[ObjectName, Entries] = field(default_factory=dict)

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield what is not as it should be; of an Ingress that was ours, what we have published for it."""
        served = self.served()
        if served is None:
            return
        wanted = union(live)
        for name, ingress in self.ingresses().items():
            now = entries_of(ingress.status.load_balancer.ingress)
            if name in served:
                target = wanted if served[name] else ()
            elif self._written.get(name) == now and now:
                target = ()
            else:
                self._written.pop(name, None)
                continue
            if now != target:
                patch = {"loadBalancer": {"ingress": documents(target) or None}}
                document = {"metadata": {"uid": ingress.metadata.uid}, "status": patch}
                yield StatusChange(INGRESSES, name, MERGE_PATCH, document, target)

    def wrote(self, change: StatusChange) -> None:
        """Remember what was published, to take it out again when the Ingress is no longer ours."""
        if change.entries:
            self._written[change.name] = change.entries
        else:
            self._written.pop(change.name, None)


@dataclass(slots=True)
class ServicePublication:
    """The status of Services of type LoadBalancer that nobody else serves.

    What is ours is told by a condition of the Service, so that no restart forgets it, and a status that somebody else
    wrote is never touched.

    Attributes:
        services: Returns those of the cluster with their endpoints, as they are now.
        taken: Returns the ports that programs of the nodes listen on, such as the API server's: none is published.
        refused: Is told each Service that is not published, and why.
    """

    services: Callable[[], Mapping[ObjectName, ServiceInput]]
    taken: Callable[[], frozenset[tuple[str, int]]]
    refused: Callable[[Mapping[ObjectName, str]], None] = lambda _: None
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield what is not as it should be; of two Services with one port the older one is published."""
        here, ports = self.taken(), dict[tuple[str, int], ObjectName]()
        refused: dict[ObjectName, str] = {}
        oldest_first = sorted(
            self.services().items(), key=lambda item: (item[1].service.metadata.creation_timestamp or "", item[0])
        )
        for name, given in oldest_first:
            service = given.service
            is_ours = is_published(service)
            if not is_ours and not _may_publish(service):
                continue
            # What a program listens on now is not taken from it; but no program takes a port from a Service, either.
            taken = frozenset() if is_ours else here
            target = self._target(name, given, live, ports, taken, refused) if is_candidate(service) else ()
            if entries_of(service.status.load_balancer.ingress) != target or bool(target) != is_ours:
                yield self._change(name, service, target)
        self.refused(refused)

    def wrote(self, change: StatusChange) -> None:
        """Remember nothing: the Service itself tells."""

    @staticmethod
    def _target(
        name: ObjectName,
        given: ServiceInput,
        live: Mapping[str, Entries],
        ports: dict[tuple[str, int], ObjectName],
        taken: frozenset[tuple[str, int]],
        refused: dict[ObjectName, str],
    ) -> Entries:
        service = given.service
        wanted = [(port.protocol, port.port) for port in service.spec.ports]
        clash = next((key for key in wanted if key in ports or key in taken), None)
        if clash is not None:
            who = f"Service {ports[clash]}" if clash in ports else "a program of the node"
            refused[name] = f"port {clash[1]}/{clash[0]} belongs to {who}"
            return ()
        ports.update(dict.fromkeys(wanted, name))
        if service.spec.external_traffic_policy == "Local":
            nodes = {
                one.node_name
                for each in given.slices
                for one in each.endpoints
                if one.conditions.ready is not False and one.node_name
            }
            live = {node: addresses for node, addresses in live.items() if node in nodes}
        families = set(service.spec.ip_families) or {"IPv4", "IPv6"}
        return tuple(one for one in union(live) if _family(one) in families)

    def _change(self, name: ObjectName, service: Service, target: Entries) -> StatusChange:
        time = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        condition: dict[str, Any] = {
            "type": PUBLISHED,
            "status": "True",
            "reason": "NodeAddresses",
            "message": ",".join(target),
            "lastTransitionTime": time,
        }
        if not target:
            condition = {"type": PUBLISHED, "$patch": "delete"}
        entries: list[dict[str, str]] | None = [{**one, "ipMode": "VIP"} for one in documents(target)] or None
        status = {"loadBalancer": {"ingress": entries}, "conditions": [condition]}
        document = {"metadata": {"uid": service.metadata.uid}, "status": status}
        return StatusChange(SERVICES, name, STRATEGIC_PATCH, document, target)


@dataclass(slots=True, eq=False)
class Publisher:
    """Publishes, from a thread of its own.

    Attributes:
        addresses: Returns what this node can be reached by; None while it serves nothing that could be reached.
        withdraws: Whether addresses are taken out at the end.
        server: Reports troubles of the API server, each once for all who talk to it.
        changed: Set to look soon: something was served, or is no longer.
    """

    members: LeaseGroup
    publications: tuple[StatusSource, ...]
    addresses: Callable[[], Entries | None]
    node_uid: Callable[[], str]
    journal: AgentLog
    state: AgentState
    clock: Callable[[], float]
    withdraws: bool = True
    server: ServerReports = field(default_factory=_NoReports)
    changed: threading.Event = field(default_factory=threading.Event)
    period_s: float = PERIOD_S
    _ended: bool = False
    _took_part: bool = False
    _trouble: str = ""
    _silent_until: float = 0.0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self, *, for_good: bool) -> None:
        """End.

        Args:
            for_good: Whether this node serves no longer; else another run goes on with it.
        """
        if self._ended:
            return
        self._ended = True
        self.changed.set()
        if self._thread is not None:
            self._thread.join(END_S)
        if for_good and self.withdraws and self._took_part and (self._thread is None or not self._thread.is_alive()):
            try:
                self.withdraw()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the end is not to be left out
                self.journal.warning("addresses of this node stay published", **fault(error))

    def _run(self) -> None:
        while not self._ended:
            self.guarded_turn()
            self.changed.wait(self.period_s)
            self.changed.clear()

    def guarded_turn(self) -> None:
        """Take a turn; where that fails, say so once, and try again with the next one."""
        if self.clock() < self._silent_until:
            return
        try:
            self.turn()
        except ApiError as error:
            if error.status == 403:
                self._silent_until = self.clock() + SILENCE_S
            if not self.server.failed(self, error, self.changed.set) and error.message != self._trouble:
                self._trouble = error.message
                self.journal.warning("addresses are not published", error=error.message, hint=error.hint)
            self.state.metrics.publish_failures.add()
        except Exception as error:  # noqa: BLE001 - whatever it is, the Lease is to be renewed with the next turn
            self.journal.error("addresses are not published", **fault(error))
            self.state.metrics.publish_failures.add()
        else:
            self._trouble = ""
            self.server.went_well(self)

    def turn(self) -> None:
        """Tell whether this node serves; and if it leads, write what is not as it should be.

        Raises:
            TroubleError: The API server does not do it.
        """
        addresses = self.addresses()
        self.members.node_uid = self.node_uid()
        if addresses is None:
            self.members.leave()
            self.state.metrics.publishing.set(0)
            return
        self.members.join(addresses)
        self._took_part = True
        leads = self.members.lead()
        self.state.metrics.publishing.set(int(leads))
        if leads:
            self._write(self.members.alive())

    def withdraw(self) -> None:
        """Take this node's addresses out: all, if it is the last; and let another one lead.

        Raises:
            TroubleError: The API server does not do it.
        """
        self.members.leave()
        others = self.members.alive()
        others.pop(self.members.node, None)
        if self.members.is_leading or not others:
            self._write(others, until=self.clock() + END_S)
        self.members.resign()

    def _write(self, live: Mapping[str, Entries], *, until: float | None = None) -> None:
        written = Counter[str]()
        try:
            refusal = self._write_all(live, until, written)
        finally:
            for noun, count in written.items():
                addresses = ",".join(union(live)) or "none"
                self.journal.info("published", resource=noun, objects=count, addresses=addresses)
        if refusal is not None:
            raise refusal

    def _write_all(self, live: Mapping[str, Entries], until: float | None, written: Counter[str]) -> ApiError | None:
        """Write every status that differs, and count in `written` those that were, by resource.

        Returns:
            Why the server refused one object, or the last of several; the others are written. None where it took all.
        """
        refusal: ApiError | None = None
        for publication in self.publications:
            for change in publication.changes(live):
                if until is None and (self._ended or not self.members.lead()):
                    return refusal
                if until is not None and self.clock() > until:
                    raise ApiError("there was no time to take out all addresses", "timeout")
                try:
                    if self._wrote(change):
                        written[change.resource.noun] += 1
                        publication.wrote(change)
                except ApiError as error:
                    if error.status in {0, 401, 403, 429} or error.status >= 500:
                        raise
                    refusal = error  # it is about this object: the others are written all the same
        return refusal

    def _wrote(self, change: StatusChange) -> bool:
        """Write a status; return whether the server has it. It has not if the object is gone, or is another one now."""
        for remaining in range(TRIES - 1, -1, -1):
            try:
                self.members.objects.patch(
                    change.resource, *change.name, change.document, kind=change.kind, sub="status"
                )
            except ApiError as error:
                if error.status == 404:
                    return False
                if error.status != 409:
                    raise
                if not remaining:  # with the next turn it is looked at anew
                    self.state.metrics.publish_failures.add()
                    self.journal.debug("not published", object=str(change.name), error=error.message)
                    return False
            else:
                self.state.metrics.published.add(change.resource.noun)
                self.journal.debug("published", object=str(change.name), addresses=",".join(change.entries))
                return True
        raise AssertionError  # the last turn of the loop returns or raises


def union(live: Mapping[str, Entries]) -> Entries:
    """Return all addresses, in order, each once; what is none is left out."""
    return _in_order(one for addresses in live.values() for one in addresses if _family(one) or _is_host(one))


def entries_of(ingress: tuple[LoadBalancerIngress, ...]) -> Entries:
    """Return what a status publishes."""
    return _in_order(one.ip or one.hostname for one in ingress)


def documents(entries: Entries) -> list[dict[str, str]]:
    """Return entries as a status has them."""
    return [{"ip": one} if _family(one) else {"hostname": one} for one in entries]


def is_candidate(service: Service) -> bool:
    """Whether a Service asks for a load balancer of no particular kind."""
    spec = service.spec
    is_whole = service.metadata.deletion_timestamp is None and spec.cluster_ip not in {"", "None"}
    return spec.type == "LoadBalancer" and spec.load_balancer_class is None and is_whole


def is_published(service: Service) -> bool:
    """Whether what a Service's status publishes is what we put there."""
    told = next((one for one in service.status.conditions if one.type == PUBLISHED and one.status == "True"), None)
    if told is None:
        return False
    now = entries_of(service.status.load_balancer.ingress)
    return not now or now == _in_order(one for one in told.message.split(",") if one)


def node_addresses(node: Node | None, *, internal: bool) -> Entries:
    """Return what a node can be reached by from outside: its external addresses, else its internal ones.

    Args:
        node: Its Node object, if there is one.
        internal: Whether only the internal ones are meant.
    """
    told: dict[str, list[str]] = {"ExternalIP": [], "InternalIP": []}
    for one in node.status.addresses if node else ():
        if one.type in told and _family(one.address):
            told[one.type].append(str(ip_address(one.address)))
    return tuple(dict.fromkeys((not internal and told["ExternalIP"]) or told["InternalIP"]))


def _may_publish(service: Service) -> bool:
    return is_candidate(service) and not service.status.load_balancer.ingress


def _in_order(entries: Iterable[str]) -> Entries:
    return tuple(sorted(set(entries)))


def _is_host(text: str) -> bool:
    """Whether a text can be the name of a host, and looks like no address."""
    return is_subdomain(text) and not text.rpartition(".")[2].isdigit()


def _family(text: str) -> str:
    """Return `IPv4` or `IPv6`; empty where a text is no address."""
    try:
        return f"IPv{ip_address(text).version}"
    except ValueError:
        return ""
