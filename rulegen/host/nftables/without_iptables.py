"""A host without iptables, for modes that write no rules of iptables."""

from __future__ import annotations

from contextlib import closing, suppress
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Final, TypeVar

from rulegen.errors import HostError
from rulegen.host.netfilter.variant import OWN_CHAIN, KnownTools, Variant, VariantChoice, choose, missing_tool
from rulegen.host.nftables.kernel.attributes import read_text
from rulegen.host.nftables.kernel.objects import GET_CHAIN
from rulegen.host.nftables.kernel.transaction import NftSocket
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.net import Family
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.host.commands.runner import Runner

AnyDriver = TypeVar("AnyDriver")

_WHY: Final = "iptables is not installed, and the kernel has no rules of a proxy for it"
_LEGACY_TABLES: Final = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


def chosen(
    run: Runner,
    forced: Variant | None,
    drivers: Mapping[str, AnyDriver],
    languages: Collection[str],
    known: KnownTools | None = None,
) -> tuple[VariantChoice, Mapping[str, AnyDriver]]:
    """Return the variant of this host, and the drivers without that of iptables if nothing needs it.

    That is the case if the mode writes no rules of iptables, no tool of iptables is installed, and no other mode or
    proxy can have left rules that only these tools remove.

    Args:
        run: Runs the tools.
        forced: The variant that was asked for.
        drivers: The driver of each language.
        languages: The languages that the mode uses.
        known: What is known about the tools; they are not looked for again then.

    Raises:
        HostError: As `choose`.
    """
    if IPTABLES not in languages and forced is None and known is None and not _is_installed(run) and not _has_rules():
        return VariantChoice(Variant.NFT, _WHY), {key: each for key, each in drivers.items() if key != IPTABLES}
    return (choose(run, forced) if known is None else known.choice), drivers


def _is_installed(run: Runner) -> bool:
    return any(missing_tool(run, variant, Family.IPV4) is None for variant in Variant)


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
