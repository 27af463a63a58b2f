"""The parameters of connection tracking, set once when the agent begins, as kube-proxy does."""

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

    from rulegen.agent.services.sync import Loop


def tune(loop: Loop) -> None:
    """Set what the configuration asks for and the kernel does not have; what may not be set here is told."""
    wanted = conntrack_parameters(loop.options.conntrack, os.cpu_count() or 1)
    for name, value in wanted.items():
        if (
            name == BE_LIBERAL
        ):  # the rules are written with it, see `rulegen.model.services.node.context.resolve_sysctls`
            continue
        _try(loop, name, partial(_set, loop, name, value))
    if CONNTRACK_MAX in wanted:  # as many buckets as the size of the table asks for
        least = int(wanted[CONNTRACK_MAX]) // 4
        _try(loop, HASH_SIZE, lambda: sysctl.raise_module_parameter(HASH_SIZE, least))


def _set(loop: Loop, name: str, value: str) -> None:
    known = sysctl.read(name)
    if known is not None and known != value:
        sysctl.write(name, value)
        loop.journal.info("kernel parameter set", name=name, value=value, before=known)


def _try(loop: Loop, name: str, work: Callable[[], None]) -> None:
    try:
        work()
    except HostError as error:
        loop.writer.refused[name] = error.message
        loop.tell_refused(name, error.message)
