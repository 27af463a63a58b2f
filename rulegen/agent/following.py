"""The cluster as an agent follows it: what is asked for, and whether all has come."""

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
    from rulegen.kube.objects.structs import Node

SHOWN: Final = 5
"""So many of what was not read are named."""


class CachedCluster(NamedTuple):
    """The cluster as an agent knew it when it ended; its successor starts from that until it has asked itself.

    Attributes:
        followed: What was asked for, and of which server: a successor that asks for something else starts from nothing.
        cluster: All objects.
        node: The Node object that rules were decided with, which may be gone from the cluster.
    """

    followed: tuple[object, ...]
    cluster: SharedCluster
    node: Node | None


class ApiAccess(NamedTuple):
    """How the API server is reached.

    Attributes:
        kubeconfig: Path of a kubeconfig; None for the one of the Pod or of the user.
        context: Its context; None for the current one.
        terms: What answers may cost, and the kubeconfig may do.
    """

    kubeconfig: str | None
    context: str | None
    terms: ApiTerms


class FollowedCluster:
    """The objects of a cluster that an agent needs, as they change.

    Attributes:
        watch: Follows them.
        followed: What is asked for, and of which server.
        cached: What a predecessor knew that asked for the same; None for nothing.
    """

    def __init__(
        self,
        access: ApiAccess,
        inbox: Inbox,
        log: AgentLog,
        *,
        node: str,
        ingress: bool,
        namespaces: bool,
        cached: CachedCluster | None,
        during_outage: tuple[str, str],
    ) -> None:
        """Read the configuration; nothing is asked for before the watch is started.

        Args:
            access: How the API server is reached.
            inbox: Is given each event.
            log: Gets a line when an outage begins and ends.
            node: Name of this node.
            ingress: Whether Ingresses are served.
            namespaces: Whether labels of namespaces decide about Ingresses.
            cached: What a predecessor knew.
            during_outage: What goes on while the server is away, for people: before all lists have come, and later.

        Raises:
            HostError: There is no configuration, or none that can be used.
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
            node=node,
            ingress=ingress,
            namespaces=namespaces,
            warn=log.warning,
            notice=self._on_outage,
            meanwhile=self._meanwhile,
        )
        self.followed: tuple[object, ...] = (self.watch.url, node, ingress, namespaces)
        self.cached = cached if cached is not None and cached.followed == self.followed else None

    def has_synced(self) -> bool:
        """Return whether every list has come once, here or to the predecessor."""
        return self.cached is not None or self.watch.has_synced

    def lacking(self, state: AgentState) -> str:
        """Return what an agent waits for that comes from elsewhere, for people; empty for nothing."""
        unanswered = self.watch.unanswered()
        if not unanswered:
            return state.last_error
        trouble = next(iter(self.watch.counts().troubles.values()), f"{self.watch.url}: no answer in time")
        more = f" and {len(unanswered) - SHOWN} more" if len(unanswered) > SHOWN else ""
        return f"{trouble}; not read: {', '.join(unanswered[:SHOWN])}{more}"

    def node_names(self) -> list[str]:
        """Return the names of all Nodes; none where they cannot be listed."""
        try:
            return read_nodes(*self._access)
        except HostError as error:
            self._log.warning("the Nodes cannot be listed", error=error.message)
            return []

    def _on_outage(self, notice: OutageNotice) -> None:
        """Log what a person must know of the API server."""
        write = self._log.info if notice.is_well else self._log.warning
        write(notice.message, **notice.fields)

    def _meanwhile(self) -> str:
        before, after = self._during_outage
        return after if self.has_synced() else before
