"""The examined host: facts that several checks need, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.variant import Variant
from rulegen.host.node import sysctl
from rulegen.host.node.facts import SYSCTLS, interfaces
from rulegen.model.services.options import Options
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.host.commands.runner import Runner
    from rulegen.host.doctor.tool import Tool
    from rulegen.model.host.facts import Interface


@dataclass
class HostProbe:
    """The host, with the options of the examination.

    Attributes:
        run: Runs tools on the host.
        forced: The iptables variant that an option selects, if any.
        node_ports: First and last node port.
        options: The options that plan, apply and run would get.
        engine_tools: The tools that ingress engines need.
    """

    run: Runner
    forced: Variant | None = None
    node_ports: tuple[int, int] = (30000, 32767)
    options: Options = field(default_factory=Options)
    engine_tools: tuple[Tool, ...] = ()

    @cached_property
    def sysctls(self) -> Mapping[str, str]:
        """The readable kernel parameters."""
        return sysctl.read_all(SYSCTLS)

    @cached_property
    def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces.

        Raises:
            HostError: The interfaces cannot be read.
        """
        return interfaces()

    @cached_property
    def rules(self) -> Mapping[tuple[Variant, Family], str | HostError]:
        """The live rules of each variant and family, or the reason why they cannot be read."""
        rulesets: dict[tuple[Variant, Family], str | HostError] = {}
        for variant in Variant:
            for family in Family:
                try:
                    rulesets[variant, family] = iptables.observe(self.run, variant, family)
                except HostError as error:
                    rulesets[variant, family] = error
        return rulesets

    def chains(self, variant: Variant) -> dict[tuple[Family, str, str], int]:
        """Return the chains of a variant by family, table and name, with their number of rules; none if unreadable."""
        counts: dict[tuple[Family, str, str], int] = {}
        for (owner, family), text in self.rules.items():
            if owner is not variant or isinstance(text, HostError):
                continue
            table = ""
            for line in text.splitlines():
                if line.startswith("*"):
                    table = line[1:]
                elif line.startswith(":"):
                    counts[family, table, line[1:].partition(" ")[0]] = 0
                elif line.startswith("-A "):
                    key = (family, table, line.split(" ", 2)[1])
                    counts[key] = counts.get(key, 0) + 1
        return counts
