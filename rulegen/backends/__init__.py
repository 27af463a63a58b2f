"""Backends: how a model becomes language state. One row each; nothing else in rulegen names a backend."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from rulegen.backends.iptables import node as iptables_node
from rulegen.backends.iptables import service as iptables_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Fragment, Layout
    from rulegen.model.ir import Node, Service


class CompileNode(Protocol):
    """Returns what the node wants, whatever the Services."""

    def __call__(self, node: Node, *, counts: bool) -> Fragment:
        """`counts` says whether rules count with nfacct."""


class CompileService(Protocol):
    """Returns what one Service wants in the node's family; a change of the Service changes only this."""

    def __call__(self, service: Service, node: Node, *, counts: bool) -> Fragment:
        """`counts` says whether rules count with nfacct."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The functions that a backend is; all are pure.

    Attributes:
        compile_node, compile_service: Model to fragments.
        cleanup_layout: The same where all of ours goes: what others share with us is left out.
        layout: How our part of a kernel's state is told from others'.
        counters: Names of the nfacct objects that counting rules need.
    """

    compile_node: CompileNode
    compile_service: CompileService
    layout: Callable[[Node], Layout]
    cleanup_layout: Callable[[Ruleset], Layout]
    counters: tuple[str, ...]


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "iptables": Backend(
            compile_node=iptables_node.compile_node,
            compile_service=iptables_service.compile_service,
            layout=iptables_node.layout,
            cleanup_layout=iptables_node.cleanup_layout,
            counters=iptables_node.COUNTERS,
        ),
    }
)
"""By `mode` of the configuration."""
