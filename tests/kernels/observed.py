"""What a node has, for tests: by the names of its kinds instead of by language."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rulegen.compiler.services.observed import Observed
from rulegen.languages.addresses.state import Links
from rulegen.languages.iptables.ruleset import Ruleset
from rulegen.languages.ipvs.state import IpvsState, Timeouts
from rulegen.languages.nftables.state import NftObjects
from rulegen.model.services.stale_flows import Flow
from rulegen.net import Family


def observing(
    rulesets: Mapping[Family, Ruleset],
    *,
    sets: Mapping[Any, Any] | None = None,
    servers: Mapping[Any, Any] | None = None,
    links: Links | None = None,
    timeouts: Timeouts | None = None,
    flows: Sequence[Flow] = (),
    counters: Collection[str] | None = None,
    beside: Mapping[Family, Ruleset] | None = None,
    tables: Mapping[Family, NftObjects] | None = None,
) -> Observed:
    """Return what a node has; what is None was not looked at."""
    states: dict[Any, Any] = {("iptables", family): ruleset for family, ruleset in rulesets.items()}
    states |= {("nftables", family): objects for family, objects in (tables or {}).items()}
    if sets is not None:
        states["ipset", None] = sets
    if servers is not None or timeouts is not None:
        states["ipvs", None] = IpvsState(servers, timeouts)
    if links is not None:
        states["links", None] = links
    return Observed(families=tuple(rulesets), states=states, flows=flows, counters=counters, beside=beside or {})
