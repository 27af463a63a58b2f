"""Narrows what is displayed of a plan: to some Services, and to some hosts of Ingresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.plan.plan import Plan


class PlanFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is displayed of a plan.

    Attributes:
        text: The filter in words; empty for no filter.
        services: Whether a Service (`namespace/name`) is displayed; None for no filter by Service.
        hosts: Names of hosts that are displayed; empty for no filter by host.
    """

    text: str = ""
    services: Callable[[str], bool] | None = None
    hosts: frozenset[str] = msgspec.field(default_factory=frozenset)

    def narrowed(self, plan: Plan) -> Plan:
        """Return the plan with the displayed items alone. It is for display, and must not be written."""
        if not self.text:
            return plan
        engine = plan.site.engine if plan.site is not None else ""
        site = plan.site
        if site is not None:
            hosts = tuple(item for item in site.items if item.kind == "host" and item.name in self.hosts)
            site = replace(site, items=hosts) if hosts else None
        items = [
            item
            for item in plan.items
            if item.language != engine and self.services is not None and item.owner and self.services(item.owner)
        ]
        return replace(plan, parts={}, items=(*items, *(site.items if site is not None else ())), site=site)
