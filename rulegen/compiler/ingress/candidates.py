"""Compiles a site with and without some of its Ingresses, to find those that an engine's program rejects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from msgspec.structs import replace

from rulegen.compiler.ingress.engine import SiteT
from rulegen.compiler.ingress.refused_ingresses import settle
from rulegen.errors import RulegenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.options import IngressOptions


class NotCompiledError(RulegenError):
    """No configuration can be compiled from these Ingresses; without one of them, it may be possible.

    Attributes:
        is_internal: Whether the reason is an error of rulegen.
    """

    def __init__(self, message: str, *, is_internal: bool = False) -> None:
        super().__init__(message)
        self.is_internal = is_internal


@dataclass(frozen=True, slots=True)
class _NotCompiled:
    """A candidate that could not be compiled, and the reason."""

    reason: str


class Candidates(Generic[SiteT]):
    """The sites of one cluster, each without some Ingresses; each site is compiled once."""

    def __init__(
        self,
        program: str,
        compile_site: Callable[[IngressOptions, SiteT | None], SiteT],
        options: IngressOptions,
        *,
        before: SiteT | None = None,
    ) -> None:
        """Take the compile function.

        Args:
            program: Name of the engine's program.
            compile_site: Compiles with some options; it receives a site whose equal decisions it may reuse.
                It raises NotCompiledError if an Ingress is the reason.
            options: Options without left-out Ingresses.
            before: The site of the last decision.
        """
        self._program, self._compile, self._options, self._before = program, compile_site, options, before
        self._sites: dict[frozenset[ObjectName], SiteT] = {}
        self._internal: set[str] = set()

    def settled(
        self,
        names: Sequence[ObjectName],
        test: Callable[[SiteT], str | None],
        suspects: Callable[[SiteT, str], Sequence[ObjectName]],
    ) -> SiteT:
        """Return the site without the rejected Ingresses, each of them reported with the reason.

        Args:
            names: The Ingresses that may be left out, oldest first.
            test: Returns why the program rejects a site; None if it does not.
            suspects: Returns the Ingresses of a site that a message of the program names.

        Raises:
            HostError: The program rejects the site even without all of them.
        """

        def tested(candidate: SiteT | _NotCompiled) -> str | None:
            return candidate.reason if isinstance(candidate, _NotCompiled) else test(candidate)

        def suspected(message: str) -> Sequence[ObjectName]:
            whole = self._sites.get(frozenset())
            return suspects(whole, message) if whole is not None else ()

        refused = settle(names, self._compiled, tested, suspected, program=self._program).quarantined
        whole = self._sites.get(frozenset())
        if not refused and whole is not None:
            return whole
        return self._site({name: self._refusal_text(reason) for name, reason in refused.items()})

    def _refusal_text(self, reason: str) -> str:
        return reason if reason in self._internal else f"{self._program} rejects it: {reason}"

    def _compiled(self, dropped: frozenset[ObjectName]) -> SiteT | _NotCompiled:
        if dropped not in self._sites:
            try:
                self._sites[dropped] = self._site(dict.fromkeys(dropped, ""))
            except NotCompiledError as error:
                if error.is_internal:
                    self._internal.add(error.message)
                return _NotCompiled(error.message)
        return self._sites[dropped]

    def _site(self, left_out: Mapping[ObjectName, str]) -> SiteT:
        options = replace(self._options, without=left_out)
        return self._compile(options, self._sites.get(frozenset(), self._before))
