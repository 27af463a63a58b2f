"""How the agent starts: with the tools of this host or without, and what it logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.apiserver.transport import account_token
from rulegen.errors import HostError
from rulegen.host.commands.runner import READ_TIMEOUT_S, VERSION_S
from rulegen.host.dataplane.idle import WaitingDataplane
from rulegen.host.netfilter import xtables_lock
from rulegen.host.netfilter.variant import NoAccessError, Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.inbox import Inbox
    from rulegen.agent.services.sync import ServiceSync
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.host.dataplane.dataplane import Dataplane
    from rulegen.model.host.facts import HostFacts


def first_dataplane(
    of_host: Callable[[float], Dataplane], facts: HostFacts, state: AgentState, inbox: Inbox, *, waits: bool
) -> Dataplane:
    """Return the dataplane of this host. If its tools are missing or hang, return one that waits for them.

    Meanwhile, Ingresses are served, and health reports what is missing. When the tools work, the agent starts again.

    Args:
        of_host: Returns the dataplane; its argument is how long each tool may take, in seconds.
        facts: Facts of the host.
        state: The state of the agent.
        inbox: Woken up when the tools work.
        waits: Whether to wait for tools; otherwise, their failure is an error.

    Raises:
        HostError: This user may not read the rules; without `waits`, also if a tool is missing or does not work.
    """
    state.lacks_tools = False
    try:
        return of_host(VERSION_S)
    except NoAccessError:
        raise  # it does not pass by itself
    except HostError:  # the sync reports it when it tries again
        if not waits:
            raise
    state.lacks_tools = True
    return WaitingDataplane(facts, look=lambda: of_host(READ_TIMEOUT_S), on_found=lambda: inbox.wake_up("reload"))


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
        log.warning("rules for IPv6 stay unchanged until its tools answer", error=missing.message, hint=missing.hint)
    exposed = account_token.exposure() if serves_ingresses else ""
    if exposed:
        log.warning(exposed)
    if writes_rules:
        # also with iptables-nft: the kubelet and other programs may write legacy rules
        caution = xtables_lock.close_to_others(make=writer.choice.variant is Variant.LEGACY)
        if caution:
            log.warning(caution)
