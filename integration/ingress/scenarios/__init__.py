"""What rulegen promises about Ingresses, feature by feature, as tables of scenarios."""

from __future__ import annotations

from integration.ingress.features import Scenario
from integration.ingress.scenarios import access, balancing, headers, protocols, routing, worlds

ALL: tuple[Scenario, ...] = (
    *access.SCENARIOS,
    *routing.SCENARIOS,
    *balancing.SCENARIOS,
    *headers.SCENARIOS,
    *protocols.SCENARIOS,
    *worlds.SCENARIOS,
)
