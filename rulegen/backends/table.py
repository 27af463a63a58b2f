"""Backends: how a model becomes language state. One row each; nothing else in rulegen names a backend."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from rulegen.backends.iptables import node as iptables_node
from rulegen.backends.iptables import service as iptables_service
from rulegen.backends.ipvs import node as ipvs_node
from rulegen.backends.ipvs import service as ipvs_service

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Layout
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.plan.fragments import OwnedObjects


class CompileNode(Protocol):
    """Returns what the node wants, whatever the Services."""

    def __call__(self, node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
        """`counts` says whether rules count with nfacct, `filled` which sets the Services have put entries in."""


class CompileService(Protocol):
    """Returns what one Service wants in the node's family; a change of the Service changes only this."""

    def __call__(self, service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
        """`counts` says whether rules count with nfacct."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The functions that a backend is; all are pure.

    Attributes:
        compile_node, compile_service: Model to fragments.
        layout: How our chains in a kernel are told from others', and from those of other modes.
        cleanup_layout: The same where all of ours goes: what others share with us is left out.
        counters: Names of the nfacct objects that counting rules need.
        devices: Names of the dummy devices that must be there.
    """

    compile_node: CompileNode
    compile_service: CompileService
    layout: Callable[[ResolvedNode, Ruleset], Layout]
    cleanup_layout: Callable[[Ruleset], Layout]
    counters: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "iptables": Backend(
            compile_node=iptables_node.compile_node,
            compile_service=iptables_service.compile_service,
            layout=iptables_node.layout,
            cleanup_layout=iptables_node.cleanup_layout,
            counters=iptables_node.COUNTERS,
        ),
        "ipvs": Backend(
            compile_node=ipvs_node.compile_node,
            compile_service=ipvs_service.compile_service,
            layout=ipvs_node.layout,
            cleanup_layout=ipvs_node.cleanup_layout,
            devices=ipvs_node.DEVICES,
        ),
    }
)
"""By `mode` of the configuration."""
