"""What a node has now, read from its kernel or from dumps of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rulegen.languages.iptables.rules import is_counted
from rulegen.languages.iptables.ruleset import Ruleset

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rulegen.languages.language import StateKey
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Family


def counts_in(observed: Observed) -> bool:
    """Whether any rule that is there counts with nfacct."""
    rulesets = (state for state in observed.states.values() if isinstance(state, Ruleset))
    return any(is_counted(rule) for ruleset in rulesets for _, rule in ruleset.rules())


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the node has now; what is None or missing was not looked at, and is not planned.

    Attributes:
        families: A family that is not in here is not planned.
        states: All that the kernel has, ours and others', by language.
        flows: What conntrack remembers of UDP.
        counters: Names of the nfacct objects that are there.
        beside: By family, the rules of the other variant of iptables, where chains of Kubernetes are among them.
    """

    families: tuple[Family, ...]
    states: Mapping[StateKey, Any]
    flows: Sequence[Flow] = ()
    counters: Collection[str] | None = None
    beside: Mapping[Family, Any] = field(default_factory=lambda: MappingProxyType({}))

    def state(self, language: str, family: Family | None) -> Any:
        """Return what the kernel has in one language and family; None if nobody looked."""
        state = self.states.get((language, family))
        return self.states.get((language, None)) if state is None else state

    def rulesets(self) -> dict[Family, Ruleset]:
        """Return the rules by family."""
        return {
            family: state
            for (_, family), state in self.states.items()
            if family is not None and isinstance(state, Ruleset)
        }
