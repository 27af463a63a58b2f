"""What the agent logs when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.apiserver.transport import account_token
from rulegen.host.netfilter import xtables_lock
from rulegen.host.netfilter.variant import Variant

if TYPE_CHECKING:
    from rulegen.agent.services.sync import ServiceSync
    from rulegen.agent.telemetry.log import AgentLog


def log_start(log: AgentLog, sync: ServiceSync, server: str, *, serves_ingresses: bool, writes_rules: bool) -> None:
    """Log the start, and what other users or a missing tool can do to this agent.

    Args:
        log: The log.
        sync: The sync of Services.
        server: The URL of the API server.
        serves_ingresses: Whether Ingresses are served.
        writes_rules: Whether rules are written.
    """
    writer = sync.writer
    log.info(
        "started",
        node=sync.node.name,
        server=server,
        variant=str(writer.choice.variant),
        why=writer.choice.reason,
        drift="mend" if sync.mends else "report",
    )
    missing = writer.without_ipv6
    if missing is not None:
        log.warning("IPv6 is left alone until a restart", error=missing.message, hint=missing.hint)
    exposed = account_token.exposure() if serves_ingresses else ""
    if exposed:
        log.warning(exposed)
    if writes_rules:
        # also with iptables-nft: the kubelet and other programs may write legacy rules
        caution = xtables_lock.close_to_others(make=writer.choice.variant is Variant.LEGACY)
        if caution:
            log.warning(caution)
