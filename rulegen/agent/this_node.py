"""This node in the cluster: its name, its Node object, and the wait for that object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.telemetry.events import ObjectReference
from rulegen.kube.node_names import unknown_node

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from rulegen.agent.cluster import SharedCluster
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.kube.objects.structs import Node

LEAVING_TAINT: Final = "ToBeDeletedByClusterAutoscaler"


def names_of(known: Node | None, others: Iterable[str]) -> frozenset[str]:
    """Return the names of a node, in lower case: those in its status, and others."""
    published = [address.address for address in known.status.addresses] if known is not None else []
    return frozenset(name.lower() for name in (*others, *published) if name)


@dataclass(slots=True)
class ThisNode:
    """The node that the agent runs on.

    Attributes:
        name: Its name in the cluster.
        cluster: The known cluster.
        must_exist: Whether nothing is written before the cluster has a Node of this name. With a mistyped name, all
            endpoints would count as those of other nodes.
        node_names: Returns the names of all Nodes, for the error message.
        host_name: Returns the current host name if it is the node's name; else nothing.
        is_waiting: Whether the agent waits for the Node object.
    """

    name: str
    cluster: SharedCluster
    state: AgentState
    log: AgentLog
    must_exist: bool = False
    node_names: Callable[[], Collection[str]] = tuple
    host_name: Callable[[], str] = str
    is_waiting: bool = False
    _other_name: str = ""

    def node(self) -> Node | None:
        """Return the Node object; None if there is none. Any thread may call this."""
        return self.cluster.node(self.name)

    def reference(self) -> ObjectReference:
        """Return the reference of this node for Events. If its UID is unknown, the name is used, as by the kubelet."""
        node = self.node()
        return ObjectReference("v1", "Node", "", self.name, (node and node.metadata.uid) or self.name)

    def is_leaving(self) -> bool:
        """Return whether the node was deleted, or will be soon (KEP-3836)."""
        node = self.node()
        if node is None or node.metadata.deletion_timestamp is not None:
            return True
        return any(taint.key == LEAVING_TAINT for taint in node.spec.taints)

    def must_wait(self) -> bool:
        """Return whether to wait for the Node object; log the start and the end of the wait."""
        if not self.must_exist:
            return False
        if self.node() is not None:
            self.must_exist = False  # a Node that is deleted later does not stop the agent
            if self.is_waiting:
                self.log.info("the Node exists now", node=self.name)
            self.is_waiting = False
            return False
        if not self.is_waiting:
            self.is_waiting = True
            reason = f"{unknown_node(self.name, self.node_names())}; nothing is written until it exists"
            self.state.waits(reason)
            self.log.warning(
                "waiting for the Node",
                error=reason,
                hint="give this node's name with --node, or add --allow-unknown-node",
            )
        return True

    def new_name(self) -> str:
        """Return the host name if it has changed since the last call; else nothing."""
        name = self.host_name()
        if name in {"", self.name, self._other_name}:
            return ""
        self._other_name = name
        return name
