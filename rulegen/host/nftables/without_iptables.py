"""A host without iptables, or with a part of it, for modes that write no rules of iptables."""

from __future__ import annotations

from contextlib import closing, suppress
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from msgspec.structs import replace

from rulegen.errors import HostError
from rulegen.host.netfilter.variant import OWN_CHAIN, KnownTools, Variant, VariantChoice, choose, missing_tool
from rulegen.host.nftables.kernel.attributes import read_text
from rulegen.host.nftables.kernel.objects import GET_CHAIN
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.net import Family
from rulegen.safe_files import read_kernel_text
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.host.commands.runner import Runner

AnyDriver = TypeVar("AnyDriver")

_WHY: Final = "iptables is not installed, and the kernel has no rules of a proxy for it"
_LEGACY_TABLES: Final = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


class OldRules:
    """The driver of iptables for such a mode: it reads the rules that others have left, of the families it can.

    Attributes:
        rules: The driver of modes that write rules.
        unseen: Why the rules of a family could not be read at the last time.
    """

    def __init__(self, rules: Any) -> None:
        """Take the driver of modes that write rules."""
        self.rules = rules
        self.unseen: dict[Family, HostError] = {}

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of that driver."""
        return getattr(self.rules, name)

    def read(self, context: Any) -> dict[Family, Any]:
        """Return the rules by family, without those that cannot be read."""
        texts: dict[Family, Any] = {}
        for family in context.families:
            self.unseen.pop(family, None)
            try:
                texts |= self.rules.read(replace(context, families=(family,)))
            except StoppingError:
                raise
            except HostError as error:
                self.unseen[family] = error
        return texts


def needs_tools(drivers: Mapping[str, Any]) -> bool:
    """Whether the mode writes rules of iptables, so that a family needs its tools."""
    return IPTABLES in drivers and not isinstance(drivers[IPTABLES], OldRules)


def unseen(drivers: Mapping[str, Any]) -> dict[Family, HostError]:
    """Return why the old rules of a family could not be read at the last time; a caller may forget one."""
    rules = drivers.get(IPTABLES)
    return rules.unseen if isinstance(rules, OldRules) else {}


def strict(drivers: Mapping[str, AnyDriver]) -> Mapping[str, AnyDriver]:
    """Return the drivers, with one that raises an error for rules that it cannot read."""
    rules = drivers.get(IPTABLES)
    return {**drivers, IPTABLES: rules.rules} if isinstance(rules, OldRules) else drivers


def warnings(errors: Mapping[Family, HostError]) -> list[str]:
    """Return a warning for each family of which old rules cannot be seen."""
    return [
        f"{error.message}: it is unknown whether another mode or proxy has left rules for {family}, which would stay"
        for family, error in sorted(errors.items())
    ]


def chosen(
    run: Runner,
    forced: Variant | None,
    drivers: Mapping[str, AnyDriver],
    languages: Collection[str],
    known: KnownTools | None = None,
) -> tuple[VariantChoice, Mapping[str, AnyDriver]]:
    """Return the variant of this host, and the drivers: without that of iptables if nothing needs it.

    That is the case if the mode writes no rules of iptables, no tool of iptables is installed, and no other mode or
    proxy can have left rules that only these tools remove. If some are installed, the mode reads what they can.

    Args:
        run: Runs the tools.
        forced: The variant that was asked for.
        drivers: The driver of each language.
        languages: The languages that the mode uses; none if all rules are to be removed.
        known: What is known about the tools; they are not looked for again then.

    Raises:
        HostError: As `choose`.
    """
    if IPTABLES in languages:
        return (choose(run, forced) if known is None else known.choice), drivers
    installed = tuple(family for family in Family if known is None and forced is None and _is_installed(run, family))
    if known is None and forced is None and not installed and not _has_rules():
        return VariantChoice(Variant.NFT, _WHY), {key: each for key, each in drivers.items() if key != IPTABLES}
    choice = choose(run, forced, installed or tuple(Family)) if known is None else known.choice
    if not languages or IPTABLES not in drivers:
        return choice, drivers
    return choice, {**drivers, IPTABLES: cast("AnyDriver", OldRules(drivers[IPTABLES]))}


def _is_installed(run: Runner, family: Family) -> bool:
    return any(missing_tool(run, variant, family) is None for variant in Variant)


def _has_rules() -> bool:
    """Whether the kernel has rules of a proxy in nf_tables, or any in ip_tables; true also if this is unknown."""
    for path in _LEGACY_TABLES:
        with suppress(FileNotFoundError):
            if read_kernel_text(path).strip():
                return True
    try:
        with closing(NftSocket()) as link:
            chains = (
                read_text(chain[3]) for number in (AF_INET, AF_INET6) for chain in link.dump(GET_CHAIN, number, b"")
            )
            return OWN_CHAIN in chains
    except (HostError, OSError):
        return True
