"""The watched cluster of an agent: what is requested, and whether all lists were received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.apiserver.lists import read_nodes
from rulegen.apiserver.watch import Watch
from rulegen.errors import HostError

if TYPE_CHECKING:
    from rulegen.agent.cluster import SharedCluster
    from rulegen.agent.inbox import Inbox
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.apiserver.limits import ApiTerms
    from rulegen.apiserver.watching.outage import OutageNotice
    from rulegen.kube.endpoints_from import EndpointsFrom
    from rulegen.kube.objects.structs import Node
    from rulegen.model.services.options import Options

SHOWN: Final = 5
"""Number of missing lists that a message names."""


class CachedCluster(NamedTuple):
    """The cluster as last known by an agent that ended; the next agent starts from it until all lists are received.

    Attributes:
        followed: The requested objects and the server; an agent that requests others starts from nothing.
        cluster: All objects.
        node: The Node object used for the last decisions; it may no longer exist in the cluster.
    """

    followed: tuple[object, ...]
    cluster: SharedCluster
    node: Node | None


class ApiAccess(NamedTuple):
    """How to reach the API server.

    Attributes:
        kubeconfig: Path of a kubeconfig; None for that of the Pod or of the user.
        context: Its context; None for the current one.
        terms: Limits for answers and for the kubeconfig.
    """

    kubeconfig: str | None
    context: str | None
    terms: ApiTerms


class Following(NamedTuple):
    """Which objects are followed.

    Attributes:
        node: Name of this node.
        ingress: Whether Ingresses are served.
        namespaces: Whether labels of namespaces select Ingresses.
        endpoints_from: Where endpoints come from.
        packs: Whether Services and EndpointSlices are kept packed, because only those that Ingresses refer to are read.
        service_cidrs: Whether the mode needs the ranges of ClusterIPs.
    """

    node: str
    ingress: bool
    namespaces: bool
    endpoints_from: EndpointsFrom
    packs: bool = False
    service_cidrs: bool = False

    def of_services(self, options: Options) -> Following:
        """Return what an agent follows that serves Services with these options."""
        needs_cidrs = options.needs.drops_unused_cluster_ips and not options.service_networks
        return self._replace(service_cidrs=needs_cidrs)

    def of_ingresses(self) -> Following:
        """Return what an agent for Ingresses alone follows."""
        return self._replace(packs=not self.endpoints_from.has_pods)  # Pods are compared with all Services


class FollowedCluster:
    """The objects of a cluster that an agent needs, kept up to date.

    Attributes:
        watch: Watches them.
        followed: The requested objects and the server.
        cached: What the previous agent knew, if it requested the same; None for nothing.
    """

    def __init__(
        self,
        access: ApiAccess,
        inbox: Inbox,
        log: AgentLog,
        *,
        following: Following,
        cached: CachedCluster | None,
        during_outage: tuple[str, str],
    ) -> None:
        """Read the kubeconfig; nothing is requested before the watch is started.

        Args:
            access: How the API server is reached.
            inbox: Receives each event.
            log: Receives a line when an outage starts or ends.
            following: Which objects are requested.
            cached: What the previous agent knew.
            during_outage: Text for the log: what continues during an outage, before all lists were received and later.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        self._access = access
        self._log = log
        self._during_outage = during_outage
        self.watch = Watch(
            inbox.on_event,
            kubeconfig=access.kubeconfig,
            context=access.context,
            terms=access.terms,
            waiting=inbox.size,
            **following._asdict(),
            warn=log.warning,
            notice=self._on_outage,
            meanwhile=self._meanwhile,
        )
        self.followed: tuple[object, ...] = (self.watch.url, *following)
        self._has_begun = False
        self.cached = cached if cached is not None and cached.followed == self.followed else None

    def start(self) -> None:
        """Start the watch, unless a previous agent has started it."""
        if not self._has_begun:
            self._has_begun = True
            self.watch.start()

    def is_same(self, known: CachedCluster, following: Following) -> bool:
        """Read the kubeconfig again, and return whether the watch goes on for another agent: nothing is listed again.

        Args:
            known: What the previous agent knew.
            following: Which objects the next agent needs.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        if known.followed != self.followed or self.followed[1:] != tuple(following):
            return False
        if not self.watch.link.read_again():
            return False
        self.cached = known
        return True

    def has_synced(self) -> bool:
        """Return whether every list was received once, by this agent or the previous one."""
        return self.cached is not None or self.watch.has_synced

    def lacking(self, state: AgentState) -> str:
        """Return as text which lists are missing, and why; empty if none is."""
        unanswered = self.watch.unanswered()
        if not unanswered:
            return state.last_error
        trouble = next(iter(self.watch.counts().troubles.values()), f"{self.watch.url}: no answer in time")
        more = f" and {len(unanswered) - SHOWN} more" if len(unanswered) > SHOWN else ""
        return f"{trouble}; not read: {', '.join(unanswered[:SHOWN])}{more}"

    def node_names(self) -> list[str]:
        """Return the names of all Nodes; nothing if they cannot be listed."""
        try:
            return read_nodes(*self._access)
        except HostError as error:
            self._log.warning("the Nodes cannot be listed", error=error.message)
            return []

    def _on_outage(self, notice: OutageNotice) -> None:
        """Log an outage of the API server, and its end."""
        write = self._log.info if notice.is_well else self._log.warning
        write(notice.message, **notice.fields)

    def _meanwhile(self) -> str:
        before, after = self._during_outage
        return after if self.has_synced() else before
