"""Writes in parts if the kernel rejects the whole: the rejected Services are found, the rest is written."""

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
    """The desired state, written in parts.

    Attributes:
        compiled: The desired state.
        plan: The changes.
        write: Writes a plan. Raises HostError.
        look: Returns the remaining changes; called again after a part was written incompletely. Raises HostError.
        drivers: By language; they interpret its errors.
    """

    compiled: Compiled
    plan: Plan
    write: Callable[[Plan], object]
    look: Callable[[], Plan]
    drivers: Mapping[str, Driver]
    belongings: Belongings = field(init=False)
    _parts: ServiceParts = field(init=False)

    def __post_init__(self) -> None:
        """Find the Service of each line and object."""
        fragments = (fragment for of_family in self.compiled.fragments.values() for fragment in of_family)
        self.belongings = Belongings(fragments, self.compiled.tables.languages)

    def search(self, error: HostError) -> RefusalVerdict:
        """Write everything that is accepted, and return the rejected Services.

        Raises:
            HostError: Nothing can be written, whichever Services are left out.
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
            if _wrote_some(error):  # rules are inserted and deleted one by one: no part is written twice
                self._parts = ServiceParts(self.look())
            return error
        return None


def _wrote_some(error: HostError) -> bool:
    return isinstance(error, ApplyError) and bool(error.applied)
