"""Backends: how a model becomes language state. One row each; nothing else in rulegen names a backend."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.backends.iptables import node as iptables_node
from rulegen.backends.iptables import service as iptables_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Fragment, Layout
    from rulegen.model.ir import Node, Service


@dataclass(frozen=True, slots=True)
class Backend:
    """The three functions that a backend is; all are pure.

    Attributes:
        compile_node: What the node wants, whatever the Services; `counts` says whether rules count with nfacct.
        compile_service: What one Service wants in the node's family; a change of the Service changes only this.
        cleanup_layout: The same where all of ours goes: what others share with us is left out.
        layout: How our part of a kernel's state is told from others'.
        counters: Names of the nfacct objects that counting rules need.
    """

    compile_node: Callable[[Node, bool], Fragment]
    compile_service: Callable[[Service, Node, bool], Fragment]
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
