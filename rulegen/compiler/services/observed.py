"""The observed state of a node, from its kernel or from dumps."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.languages.iptables.rules import is_counted
from rulegen.languages.iptables.ruleset import Ruleset

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rulegen.languages.language import StateKey
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family


def counts_in(observed: Observed) -> bool:
    """Whether any observed rule has an nfacct counter."""
    rulesets = (state for state in observed.states.values() if isinstance(state, Ruleset))
    return any(is_counted(rule) for ruleset in rulesets for _, rule in ruleset.rules())


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """The observed state of a node; parts that are None or missing are unknown and not planned.

    Attributes:
        families: A missing family is not planned.
        states: Complete state of the kernel by language, including objects of other programs.
        flows: UDP entries of conntrack.
        counters: Names of the existing nfacct objects.
        beside: By family, the rules of the other iptables variant, if it has chains of Kubernetes.
    """

    families: tuple[Family, ...]
    states: Mapping[StateKey, Any]
    flows: Sequence[Flow] = ()
    counters: Collection[str] | None = None
    beside: Mapping[Family, Any] = msgspec.field(default_factory=lambda: MappingProxyType({}))

    def state(self, language: str, family: Family | None) -> Any:
        """Return the state of one language and family; None if it was not observed."""
        state = self.states.get((language, family))
        return self.states.get((language, None)) if state is None else state

    def rulesets(self) -> dict[Family, Ruleset]:
        """Return the rules by family."""
        return {
            family: state
            for (_, family), state in self.states.items()
            if family is not None and isinstance(state, Ruleset)
        }
