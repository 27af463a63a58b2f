"""Writing in parts where the kernel rejects the whole: the Services that it rejects are found, the rest is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.compiler.services.attribution import Belongings, ServiceParts
from rulegen.errors import ApplyError, HostError
from rulegen.host.dataplane.refused_services import Search, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.compiler.services.compile import Compiled
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.dataplane.refused_services import RefusalVerdict
    from rulegen.plan.plan import Plan


@dataclass(slots=True)
class Apart:
    """What is wanted, written in parts.

    Attributes:
        compiled: What is wanted.
        plan: What must change for that.
        write: Writes a plan. Raises HostError.
        look: Returns what must change now: asked again where a part was half written. Raises HostError.
        drivers: By language, whose errors are read.
    """

    compiled: Compiled
    plan: Plan
    write: Callable[[Plan], object]
    look: Callable[[], Plan]
    drivers: Mapping[str, Driver]
    belongings: Belongings = field(init=False)
    _parts: ServiceParts = field(init=False)

    def __post_init__(self) -> None:
        """Know whose everything is."""
        fragments = (fragment for of_family in self.compiled.fragments.values() for fragment in of_family)
        self.belongings = Belongings(fragments, self.compiled.tables.languages)

    def search(self, error: HostError) -> RefusalVerdict:
        """Write all that is taken, and return who is rejected.

        Raises:
            HostError: Nothing can be written, anyone who is left out.
        """
        self._parts = ServiceParts(self.plan)
        owners = self._parts.owners
        if _wrote_some(error):
            self._parts = ServiceParts(self.look())
        return Search(self._attempt, self.belongings, drivers=self.drivers).run(owners, error)

    def _attempt(self, owners: Collection[str], *, with_node: bool) -> HostError | None:
        try:
            self.write(self._parts.of(owners, with_node=with_node))
        except HostError as error:
            if not is_refusal(error, self.drivers):
                raise
            if _wrote_some(error):  # rules are put in and taken out one by one: no part is written twice
                self._parts = ServiceParts(self.look())
            return error
        return None


def _wrote_some(error: HostError) -> bool:
    return isinstance(error, ApplyError) and bool(error.applied)
