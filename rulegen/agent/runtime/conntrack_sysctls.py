"""The parameters of connection tracking, set once when the agent starts, as kube-proxy does."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.node import sysctl
from rulegen.model.host.conntrack_limits import CONNTRACK_MAX, HASH_SIZE, conntrack_parameters
from rulegen.model.services.node.context import BE_LIBERAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.model.services.options import Options


def set_conntrack_parameters(options: Options, log: AgentLog) -> dict[str, str]:
    """Set the parameters that the configuration requests, unless the kernel already has these values.

    Returns:
        The parameters that cannot be set on this host, each with the reason.
    """
    refused: dict[str, str] = {}
    wanted = conntrack_parameters(options.conntrack, os.cpu_count() or 1)
    for name, value in wanted.items():
        if (
            name != BE_LIBERAL
        ):  # these are written with the rules, see `rulegen.model.services.node.context.resolve_sysctls`
            _try(name, partial(_set, name, value, log), refused)
    if CONNTRACK_MAX in wanted:  # as many buckets as the table size requires
        least = int(wanted[CONNTRACK_MAX]) // 4
        _try(HASH_SIZE, partial(sysctl.raise_module_parameter, HASH_SIZE, least), refused)
    return refused


def _set(name: str, value: str, log: AgentLog) -> None:
    known = sysctl.read(name)
    if known is not None and known != value:
        sysctl.write(name, value)
        log.info("kernel parameter set", name=name, value=value, before=known)


def _try(name: str, work: Callable[[], object], refused: dict[str, str]) -> None:
    try:
        work()
    except HostError as error:
        refused[name] = error.message
