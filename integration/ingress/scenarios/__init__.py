"""What rulegen promises about Ingresses, feature by feature, as tables of scenarios."""

from __future__ import annotations

from integration.ingress.features import Scenario
from integration.ingress.scenarios import (
    access,
    balancing,
    canaries,
    e2e_annotations,
    e2e_settings,
    errors,
    external_auth,
    forwarded,
    headers,
    outside,
    protocols,
    routing,
    snippets,
    unclaimed,
    variables,
    worlds,
)

ALL: tuple[Scenario, ...] = (
    *access.SCENARIOS,
    *external_auth.SCENARIOS,
    *routing.SCENARIOS,
    *unclaimed.SCENARIOS,
    *errors.SCENARIOS,
    *canaries.SCENARIOS,
    *balancing.SCENARIOS,
    *headers.SCENARIOS,
    *forwarded.SCENARIOS,
    *outside.SCENARIOS,
    *protocols.SCENARIOS,
    *snippets.SCENARIOS,
    *variables.SCENARIOS,
    *worlds.SCENARIOS,
    *e2e_annotations.SCENARIOS,
    *e2e_settings.SCENARIOS,
)
