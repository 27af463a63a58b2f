"""The protocol of a backend. A mode is one row of this type; the rest of rulegen knows nothing else about a mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.kube.proxyconfig.modes import ModeSections
    from rulegen.languages.language import Changes, Union
    from rulegen.model.services.ir import Model, ResolvedNode, ResolvedService
    from rulegen.model.services.modes import ModeNeeds
    from rulegen.ownership.table import OwnershipOf
    from rulegen.plan.fragments import OwnedObjects


class CompileNode(Protocol):
    """Compiles the objects that the node needs independently of its Services."""

    def __call__(self, node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
        """Return the objects. With `counts`, rules count with nfacct; `filled` names the sets that have entries."""


class CompileService(Protocol):
    """Compiles the objects of one Service in the family of the node; they depend on no other Service."""

    def __call__(self, service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
        """Return the objects. With `counts`, rules count with nfacct."""


class CompileBetween(Protocol):
    """Compiles the node's objects for the time in which objects of other languages change.

    Returns None if the final objects are also correct during the change.
    """

    def __call__(
        self,
        node: ResolvedNode,
        *,
        counts: bool,
        unions: Mapping[str, Union],
        ours: Mapping[str, Mapping[Any, Any]],
        changes: Mapping[str, Changes],
    ) -> OwnedObjects | None:
        """Return the objects. By language: `unions` are wanted, `ours` are in the kernel, `changes` are planned."""


def _nothing_filled(_unions: Mapping[str, Union], _changes: Mapping[str, Changes]) -> frozenset[str]:
    return frozenset()


def _nothing_of_the_host(_model: Model) -> Mapping[str, Mapping[Any, Any]]:
    return {}


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy mode: how it compiles, and which objects it owns. All functions are pure.

    Attributes:
        mode: The name of the mode in the configuration.
        languages: The names of the languages that it writes.
        on_request: The names of other languages, which it writes only if a Service asks for the proxy.
        needs: The differences between modes that the model must know.
        sections: The sections of a configuration that the mode reads.
        compile_node, compile_service: Compile the node's part and one Service into fragments.
        ownership: By language, which objects belong to rulegen, in the order in which this is determined. It includes
            languages that the mode does not write, so that objects of another mode are removed.
        compile_host: By language, the wanted objects that belong to no address family.
        depends_on: The languages whose objects the node's own rules refer to.
        filled: Returns the names of the sets that have entries after the changes.
        compile_between: See `CompileBetween`; None if the node's rules never depend on sets.
        counters: The names of the nfacct objects that counting rules refer to.
    """

    mode: str
    languages: tuple[str, ...]
    needs: ModeNeeds
    sections: ModeSections
    compile_node: CompileNode
    compile_service: CompileService
    ownership: Mapping[str, OwnershipOf]
    on_request: tuple[str, ...] = ()
    compile_host: Callable[[Model], Mapping[str, Mapping[Any, Any]]] = _nothing_of_the_host
    depends_on: tuple[str, ...] = ()
    filled: Callable[[Mapping[str, Union], Mapping[str, Changes]], frozenset[str]] = _nothing_filled
    compile_between: CompileBetween | None = None
    counters: tuple[str, ...] = ()

    @property
    def all_languages(self) -> tuple[str, ...]:
        """The languages that it writes, also those on request."""
        return (*self.languages, *self.on_request)
