"""What rulegen promises about Ingresses, feature by feature, as tables of scenarios."""

from __future__ import annotations

from integration.ingress.features import Scenario
from integration.ingress.scenarios import (
    balancing,
    canaries,
    errors,
    headers,
    protocols,
    routing,
    services,
    unclaimed,
    variables,
    worlds,
)
from integration.ingress.scenarios.e2e import annotations, settings
from integration.ingress.scenarios.protection import access, external_auth, forwarded, outside, snippets

ALL: tuple[Scenario, ...] = (
    *access.SCENARIOS,
    *external_auth.SCENARIOS,
    *routing.SCENARIOS,
    *unclaimed.SCENARIOS,
    *errors.SCENARIOS,
    *canaries.SCENARIOS,
    *services.SCENARIOS,
    *balancing.SCENARIOS,
    *headers.SCENARIOS,
    *forwarded.SCENARIOS,
    *outside.SCENARIOS,
    *protocols.SCENARIOS,
    *snippets.SCENARIOS,
    *variables.SCENARIOS,
    *worlds.SCENARIOS,
    *annotations.SCENARIOS,
    *settings.SCENARIOS,
)
