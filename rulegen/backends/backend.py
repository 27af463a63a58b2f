"""What a backend is to the rest of rulegen: one row for each mode, that says all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.kube.proxyconfig.modes import ModeSections
    from rulegen.languages.language import Changes, Union
    from rulegen.model.services.ir import Model, ResolvedNode, ResolvedService
    from rulegen.model.services.modes import ModeNeeds
    from rulegen.ownership.table import OwnershipOf
    from rulegen.plan.fragments import OwnedObjects


class CompileNode(Protocol):
    """Returns what the node wants, whatever the Services."""

    def __call__(self, node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
        """`counts` says whether rules count with nfacct, `filled` which sets the Services have put entries in."""


class CompileService(Protocol):
    """Returns what one Service wants in the node's family; a change of the Service changes only this."""

    def __call__(self, service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
        """`counts` says whether rules count with nfacct."""


class CompileBetween(Protocol):
    """Returns what the node wants while objects of other languages change; None if it wants the same all along."""

    def __call__(
        self,
        node: ResolvedNode,
        *,
        counts: bool,
        unions: Mapping[str, Union],
        ours: Mapping[str, Mapping[Any, Any]],
        changes: Mapping[str, Changes],
    ) -> OwnedObjects | None:
        """By language: `unions` what is wanted, `ours` what is there, `changes` what changes."""


def _nothing_filled(_unions: Mapping[str, Union], _changes: Mapping[str, Changes]) -> frozenset[str]:
    return frozenset()


def _nothing_of_the_host(_model: Model) -> Mapping[str, Mapping[Any, Any]]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a mode is; all functions are pure.

    Attributes:
        mode: The name of the mode, as the configuration has it.
        languages: The languages that it writes, by name.
        needs: What the model must know of the mode.
        sections: Which sections of a configuration the mode reads.
        compile_node, compile_service: Model to fragments.
        ownership: Which objects are ours, by language, in the order in which that is found. Languages that it does not
            write are in here too: what another mode left is removed.
        compile_host: By language, what is wanted that belongs to no family.
        depends_on: The languages on whose objects the node's own rules depend.
        filled: The names of the sets that have entries once changes of these are made.
        compile_between: What the node wants while sets change; None if its rules never depend on sets.
        counters: Names of the nfacct objects that counting rules need.
    """

    mode: str
    languages: tuple[str, ...]
    needs: ModeNeeds
    sections: ModeSections
    compile_node: CompileNode
    compile_service: CompileService
    ownership: Mapping[str, OwnershipOf]
    compile_host: Callable[[Model], Mapping[str, Mapping[Any, Any]]] = _nothing_of_the_host
    depends_on: tuple[str, ...] = ()
    filled: Callable[[Mapping[str, Union], Mapping[str, Changes]], frozenset[str]] = _nothing_filled
    compile_between: CompileBetween | None = None
    counters: tuple[str, ...] = ()
