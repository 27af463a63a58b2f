"""The list of checks of this host.

Checks change nothing, except that the kernel may load a module for a tested rule. They never fail: a check that cannot
be made is a finding too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.doctor.bindings import check_bindings
from rulegen.host.doctor.external_addresses import check_external_addresses
from rulegen.host.doctor.features import check_features
from rulegen.host.doctor.findings import Finding, Level, as_document, as_text
from rulegen.host.doctor.listeners import check_other_proxies, check_ports
from rulegen.host.doctor.local_traffic import check_local_traffic
from rulegen.host.doctor.patient import HostProbe
from rulegen.host.doctor.rulesets import check_both_variants, check_leftovers
from rulegen.host.doctor.settings import check_modules, check_settings
from rulegen.host.doctor.tools import check_privileges, check_tools, check_variant
from rulegen.model.services.options import Options
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rulegen.host.commands.runner import Runner
    from rulegen.host.doctor.tool import Tool
    from rulegen.host.netfilter.variant import Variant

__all__ = ["Finding", "Level", "as_document", "as_text", "examine"]

CHECKS: Final[tuple[tuple[str, Callable[[HostProbe], Iterator[Finding]]], ...]] = (
    ("privileges", check_privileges),
    ("tools", check_tools),
    ("variant", check_variant),
    ("rules", check_both_variants),
    ("leftovers", check_leftovers),
    ("kernel", check_features),
    ("modules", check_modules),
    ("settings", check_settings),
    ("local traffic", check_local_traffic),
    ("addresses", check_external_addresses),
    ("proxies", check_other_proxies),
    ("ports", check_ports),
    ("python-iptables", check_bindings),
)
"""Each check, with the topic of the finding if it cannot be made."""


def examine(
    run: Runner,
    *,
    forced: Variant | None = None,
    node_ports: tuple[int, int] = (30000, 32767),
    options: Options | None = None,
    engine_tools: tuple[Tool, ...] = (),
) -> tuple[Finding, ...]:
    """Return all findings about this host, in the order of the checks. Never raises; needs no privilege to run.

    Args:
        run: Runs the tools.
        forced: The iptables variant that an option selects, if any.
        node_ports: First and last node port of the cluster.
        options: The options that plan, apply and run would get; None without any.
        engine_tools: The tools that ingress engines need.
    """
    patient = HostProbe(run, forced, node_ports, options or Options(), engine_tools)
    return tuple(finding for topic, check in CHECKS for finding in _made(topic, check, patient))


def _made(topic: str, check: Callable[[HostProbe], Iterator[Finding]], patient: HostProbe) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except HostError as error:
        yield Finding(Level.WARN, topic, f"could not be checked: {error.message}", error.hint)
    except Exception as error:  # noqa: BLE001 - the host may be faulty: report it, and go on
        words = printable(" ".join(str(error).split()), 300)
        yield Finding(Level.WARN, topic, f"could not be checked: {type(error).__name__}: {words}")
