"""The nodes that serve the same group, each with a Lease that it renews, and their leader, which writes for all.

A Lease (coordination.k8s.io/v1) is a heartbeat: a node that has not renewed its Lease within the stated duration counts
as dead. That time is measured with the local clock, from the renewal: between the last two reads of the Lease, at the
time that the Lease states. Clocks of nodes differ, so the Lease contains the API server's time (the Date of its
answers), and this is accepted only within those two reads. The Node owns its Lease, which is deleted with it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rulegen.agent.telemetry.events import micro_time
from rulegen.apiserver.objects import LEASES
from rulegen.apiserver.transport.failures import ApiError
from rulegen.kube.syntax import is_label_value, is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.apiserver.objects import ApiObjects

ADDRESSES: Final = "rulegen.io/addresses"
"""Annotation of a node's Lease: its addresses, separated by commas."""
GROUP: Final = "rulegen.io/publishes"
"""Label of a node's Lease: what it serves."""
PORTS: Final = "rulegen.io/ports"
"""Annotation of a node's Lease: the ports that its own programs listen on, such as `TCP/22,UDP/53`."""
MAX_PORTS: Final = 1000
"""Maximum number of ports of one node that are written."""
LONGEST_LEASE_S: Final = 3600
SKEW_S: Final = 2.0
"""Tolerance for written times: they are the API server's, but its Date header has whole seconds."""
MAX_ADDRESSES: Final = 32
"""Addresses of one node that are used; more are ignored."""
LONGEST_NAME: Final = 180

_Answer = TypeVar("_Answer")

Port = tuple[str, int]
"""Protocol and number."""

_PORT: Final = re.compile(r"(TCP|UDP|SCTP)/([0-9]{1,5})\Z")
_MICRO_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?(?:Z|\+00:00)\Z")


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Times for renewing Leases, in seconds.

    Attributes:
        lease_s: Duration of a Lease.
        renew_s: Time between two renewals.
    """

    lease_s: float = 30.0
    renew_s: float = 10.0


@dataclass(slots=True)
class _Seen:
    """A Lease of another node, as last read.

    Attributes:
        at: Time of its renewal, by the local clock.
        looked_at: Time when it was read.
    """

    version: str
    at: float
    looked_at: float


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class LeaseGroup:
    """The nodes that serve what this node serves, and their leader.

    Attributes:
        namespace: Where the Leases are.
        group: Name of what is served: one for each class of Ingresses.
        node: This node's name.
        node_uid: Its UID, once known.
        ports: Returns the ports that programs of this node listen on, if they are needed.
        taken: The ports of all nodes, from their Leases.
        now: The API server's time.
    """

    objects: ApiObjects
    namespace: str
    group: str
    node: str
    clock: Callable[[], float]
    node_uid: str = ""
    ports: Callable[[], frozenset[Port]] = frozenset
    taken: frozenset[Port] = frozenset()
    rhythm: LeaseTiming = field(default_factory=LeaseTiming)
    now: Callable[[], dt.datetime] = _now
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _joined: tuple[str, ...] | None = None
    _joined_at: float = 0.0
    _leads_until: float = 0.0
    _look_at: float = -math.inf
    _own: dict[str, Any] | None = None
    _answered_at: float = math.inf
    _is_away: bool = False
    _absence: tuple[float, float] = (-math.inf, -math.inf)

    @property
    def leader_lease(self) -> str:
        """Name of the Lease whose holder is the leader."""
        return f"rulegen-{_part(self.group)}.leader"

    @property
    def own_lease(self) -> str:
        """The name of this node's Lease."""
        return f"rulegen-{_part(self.group)}.node.{_part(self.node)}"

    @property
    def is_leading(self) -> bool:
        """Whether this node is the leader."""
        return self.clock() < self._leads_until

    def join(self, addresses: tuple[str, ...]) -> None:
        """Renew this node's Lease, with its addresses, when it is due.

        Raises:
            ApiError: The API server does not accept it.
        """
        at = self.clock()
        if self._joined == addresses and at - self._joined_at < self.rhythm.renew_s:
            return
        self._heartbeat(self.node, addresses, round(self.rhythm.lease_s))
        self._joined, self._joined_at = addresses, at

    def leave(self) -> None:
        """Give up this node's Lease.

        Raises:
            ApiError: The API server does not accept it; other nodes see it when the Lease expires.
        """
        if self._joined is not None:
            self._heartbeat("", (), 1)
            self._joined = None

    def alive(self) -> dict[str, tuple[str, ...]]:
        """Return the addresses of all serving nodes, by name of the node.

        Raises:
            ApiError: They cannot be read.
        """
        labels = f"{GROUP}={_part(self.group)}"
        leases = self._asked(lambda: self.objects.list(LEASES, self.namespace, labels))
        alive, names, taken = {}, set(), set(self.ports())
        for lease in leases:
            name, holder = _text(lease, "metadata", "name"), _text(lease, "spec", "holderIdentity")
            names.add(name)
            if self._is_alive(lease) and is_subdomain(holder):
                addresses = _text(lease, "metadata", "annotations", ADDRESSES).split(",")
                alive[holder] = tuple(filter(None, addresses))[:MAX_ADDRESSES]
                taken.update(_ports(_text(lease, "metadata", "annotations", PORTS)))
        self.taken = frozenset(taken)
        self._seen = {name: seen for name, seen in self._seen.items() if name in names or name == self.leader_lease}
        return dict(sorted(alive.items()))

    def _asked(self, ask: Callable[[], _Answer]) -> _Answer:
        """Return an answer of the API server; after a long outage, no node could renew its Lease.

        All Leases then count as renewed one period ago, so that live nodes have time to renew theirs.
        """
        try:
            answer = ask()
        except ApiError as error:
            self._is_away |= error.status == 0 or error.status >= 500
            raise
        at, before = self.clock(), self._answered_at
        if self._is_away and at - before > 2 * self.rhythm.renew_s:
            self._absence = before, at
            for seen in self._seen.values():
                seen.at = max(seen.at, at - self.rhythm.renew_s)
        self._answered_at, self._is_away = at, False
        return answer

    def lead(self) -> bool:
        """Try to become or stay the leader; return whether this node is.

        Raises:
            ApiError: The API server does not answer. The current leader stays until its Lease expires.
        """
        at = self.clock()
        if at < self._look_at:
            return self.is_leading
        lease = self._asked(lambda: self.objects.read(LEASES, self.namespace, self.leader_lease))
        holder = _text(lease, "spec", "holderIdentity") if lease else ""
        if lease and holder and holder != self.node and (until := self._alive_until(lease)) > at:
            self._follow(min(at + self.rhythm.renew_s, until))
            return False
        spec = self._spec(lease, self.node, round(self.rhythm.lease_s))
        try:
            self._keep(self.leader_lease, lease, spec, {})
        except ApiError as error:
            if error.status != 409:
                raise
            self._follow(at + self.rhythm.renew_s)  # another client was faster
            return False
        # Measured from before the request and with a margin: other nodes measure from when they read it.
        self._look_at, self._leads_until = at + self.rhythm.renew_s, at + self.rhythm.lease_s * 0.8
        return True

    def _follow(self, until: float) -> None:
        """Follow another leader until its Lease expires, or sooner."""
        self._look_at, self._leads_until = until, 0.0
        # A node that is not the leader does not read the other Leases, so what it knows is outdated.
        self._seen = {name: seen for name, seen in self._seen.items() if name == self.leader_lease}

    def resign(self) -> None:
        """Give up the leadership, so that another node can take over at once.

        Raises:
            ApiError: The API server does not accept it.
        """
        if not self._leads_until:
            return
        self._leads_until, self._look_at = 0.0, -math.inf  # if this node serves again, it asks at once
        lease = self.objects.read(LEASES, self.namespace, self.leader_lease)
        if lease and _text(lease, "spec", "holderIdentity") == self.node:
            self._keep(self.leader_lease, lease, self._spec(lease, "", 1), {})

    def _heartbeat(self, holder: str, addresses: tuple[str, ...], lease_s: int) -> None:
        more: dict[str, Any] = {"annotations": {ADDRESSES: ",".join(addresses)}}
        if ports := sorted(self.ports())[:MAX_PORTS]:
            more["annotations"][PORTS] = ",".join(f"{protocol}/{number}" for protocol, number in ports)
        more["labels"] = {"app.kubernetes.io/name": "rulegen", GROUP: _part(self.group)}
        if self.node_uid:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.node_uid}
            more["ownerReferences"] = [owner]
        try:
            self._beat(self._own, holder, lease_s, more)
        except ApiError as error:
            if self._own is None or error.status not in {404, 409}:
                raise
            self._beat(None, holder, lease_s, more)  # another client wrote or deleted it

    def _beat(self, known: dict[str, Any] | None, holder: str, lease_s: int, more: Mapping[str, Any]) -> None:
        lease = known or self._asked(lambda: self.objects.read(LEASES, self.namespace, self.own_lease))
        self._own = self._keep(self.own_lease, lease, self._spec(lease, holder, lease_s), more)

    def _spec(self, lease: Mapping[str, Any] | None, holder: str, lease_s: int) -> dict[str, Any]:
        now = micro_time(self.now())
        old = lease.get("spec", {}) if lease else {}
        changes = old.get("holderIdentity", "") != holder
        transitions = old.get("leaseTransitions", 0)
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": lease_s,
            "acquireTime": now if changes else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": transitions + (changes and bool(lease)) if isinstance(transitions, int) else 0,
        }

    def _keep(
        self, name: str, lease: Mapping[str, Any] | None, spec: dict[str, Any], more: Mapping[str, Any]
    ) -> dict[str, Any]:
        document: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        if lease is None:
            document["metadata"] = {"name": name, "namespace": self.namespace, **more}
            return self._asked(lambda: self.objects.create(LEASES, self.namespace, document))
        document["metadata"] = {**lease["metadata"], **more}
        return self._asked(lambda: self.objects.update(LEASES, self.namespace, name, document))

    def _is_alive(self, lease: Mapping[str, Any]) -> bool:
        """Whether a Lease is held now."""
        return self._alive_until(lease) > self.clock()

    def _alive_until(self, lease: Mapping[str, Any]) -> float:
        """Return the time until which a Lease is held, by the local clock; a time long ago if it is not held."""
        spec = lease.get("spec", {})
        duration = spec.get("leaseDurationSeconds")
        if not isinstance(duration, int) or not _text(lease, "spec", "holderIdentity"):
            return -math.inf
        at = self.clock()
        name, version = _text(lease, "metadata", "name"), _text(lease, "metadata", "resourceVersion")
        seen = self._seen.get(name)
        if seen is None or seen.version != version:
            renewed_at = at - self._age(_text(lease, "spec", "renewTime"))
            if seen is not None:  # it was renewed since then, whatever time it contains
                renewed_at = max(renewed_at, seen.looked_at)
            seen = self._seen[name] = _Seen(version, renewed_at, at)
        seen.looked_at = at
        return seen.at + min(max(duration, 1), LONGEST_LEASE_S)

    def _age(self, renewed: str) -> float:
        """Return the age of a Lease in seconds, by the time that it contains.

        Time during which the API server did not answer does not count.
        """
        match = _MICRO_TIME.match(renewed)
        try:
            when = dt.datetime.fromisoformat(f"{match[1] if match else ''}+00:00")
        except ValueError:
            return math.inf
        age = max((self.now() - when).total_seconds() - SKEW_S, 0.0)
        left_at, back_at = self._absence
        if self.clock() - age < back_at:
            age -= min(age - (self.clock() - back_at), back_at - left_at)
        return age


def _text(document: Any, *path: str) -> str:
    """Return a text of a document; empty if it has none."""
    value = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def _ports(text: str) -> Iterator[Port]:
    for port in text.split(",")[:MAX_PORTS]:
        if (match := _PORT.match(port)) is not None:
            yield match[1], int(match[2])


def _part(text: str) -> str:
    """Return a text for names and labels: unchanged, or its digest if it is not valid there."""
    is_fine = is_subdomain(text) and is_label_value(text)
    return text if is_fine and len(text) <= LONGEST_NAME else hashlib.sha256(text.encode()).hexdigest()[:20]
