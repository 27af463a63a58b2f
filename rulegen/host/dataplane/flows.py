"""Reads the UDP flows of conntrack for a dataplane; a tool that hangs does not delay each write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import ToolTimeoutError
from rulegen.host.netfilter import conntrack
from rulegen.model.services.stale_flows import frontends_of
from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.host.commands.runner import Runner
    from rulegen.model.services.ir import ResolvedService
    from rulegen.model.services.stale_flows import Flow, FlowFrontend
    from rulegen.net import Family

PAUSE: Final = 10
"""After a timeout, the tool is not called for this multiple of its time limit."""


@dataclass(slots=True)
class FlowReader:
    """Reads flows, with a pause after a timeout."""

    clock: Callable[[], float] = time.monotonic
    _error: HostError | None = None
    _again_at: float = 0.0

    def read(self, run: Runner, families: Iterable[Family]) -> tuple[list[Flow], HostError | None]:
        """Return the UDP flows; if they cannot be listed, nothing and the reason, because no rule needs them."""
        if self._error is not None and self.clock() < self._again_at:
            return [], self._error
        self._error = None
        try:
            return [flow for family in families for flow in conntrack.list_flows(run, family)], None
        except ToolTimeoutError as error:
            self._error, self._again_at = error, self.clock() + PAUSE * conntrack.LIST_S
            return [], error
        except HostError as error:
            return [], error


def has_udp(service: ResolvedService | None) -> bool:
    """Whether a Service has a port of UDP."""
    return service is not None and any(port.protocol is Protocol.UDP for port in service.ports)


def udp_frontends(services: Iterable[ResolvedService]) -> set[FlowFrontend]:
    """Return what clients of UDP send to."""
    return {
        frontend
        for service in services
        for port in service.ports
        if port.protocol is Protocol.UDP
        for frontend in frontends_of(port)
    }
