"""Finds the iptables variant of this host: rules are in nf_tables (`nft`) or in the older ip_tables (`legacy`).

The kernel applies the rules of both, so all programs on a node must use the same variant. The kubelet creates a chain
as a hint in the variant that it uses. The order of checks is that of the `iptables-wrappers` script in kube-proxy's
image.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.errors import HostError
from rulegen.host.commands.runner import (
    READ_TIMEOUT_S,
    VERSION_S,
    Command,
    Completed,
    MissingToolError,
    ToolTimeoutError,
    privilege_hint,
)
from rulegen.net import Family

if TYPE_CHECKING:
    from rulegen.host.commands.runner import Runner

HINT_CHAINS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
_BUSY: Final = 4
"""The exit code of the tools of iptables for a lack of resources, or for another program that writes just now."""
_BY_SIGNAL: Final = 128
"""A shell reports a signal as a code above this one."""
OWN_CHAIN = "KUBE-POSTROUTING"
"""The smallest chain of table nat that every node with our rules (or kube-proxy's) has."""


class Variant(enum.StrEnum):
    """The part of the kernel that has the rules."""

    NFT = "nft"
    LEGACY = "legacy"

    @property
    def other(self) -> Variant:
        """The other variant."""
        return Variant.LEGACY if self is Variant.NFT else Variant.NFT


class VariantChoice(msgspec.Struct, frozen=True):
    """The variant to use, and the reason for messages."""

    variant: Variant
    reason: str


class KnownTools(NamedTuple):
    """What an agent knows about the tools when its configuration is read again: tools that fail then change nothing.

    Attributes:
        choice: The variant.
        families: The families that have tools.
    """

    choice: VariantChoice
    families: tuple[Family, ...]


class NoVariantError(HostError):
    """The rules of neither variant can be read, or it is unknown which one this host uses."""


class NoAccessError(HostError):
    """This user may not read the rules."""


def choose(run: Runner, forced: Variant | None = None, families: tuple[Family, ...] = tuple(Family)) -> VariantChoice:
    """Return the variant that this host uses.

    A forced variant is used if its tools are installed. Otherwise the first match decides: a hint chain of the kubelet
    in nft; one in legacy; chains of a Service proxy in only one variant; nft. The third check is not in
    `iptables-wrappers`: without it, a node without kubelet whose rules are in legacy would get them again in nft.

    Args:
        run: Runs the tools.
        forced: The variant that was asked for.
        families: The families whose tools are used. The tools of the first one must be installed.

    Raises:
        MissingToolError: iptables, or its forced variant, is not installed.
        NoVariantError: The rules of neither variant can be read, or a tool fails without a reason.
        NoAccessError: This user may not read them.
        ToolTimeoutError: A tool hangs.
    """
    if forced is not None:
        with suppress(ToolTimeoutError):  # it is installed: a read of rules with it reports more
            call(run, forced, families[0], "save", ("--version",), timeout_s=VERSION_S)
        return VariantChoice(forced, "as demanded")
    chains = {variant: _chains(run, variant, families) for variant in Variant}
    usable = [variant for variant in Variant if isinstance(chains[variant], frozenset)]
    if not usable:
        raise NoVariantError(
            "; ".join(str(reason) for reason in chains.values()),
            hint="iptables must work on this host: install the package iptables; without it, only --observed works",
        )
    if len(usable) == 1:
        return VariantChoice(usable[0], str(chains[usable[0].other]))
    for variant in usable:
        for hint in HINT_CHAINS:
            if hint in chains[variant]:
                return VariantChoice(variant, f"chain {hint} of the kubelet is in iptables-{variant}")
    owners = [variant for variant in usable if OWN_CHAIN in chains[variant]]
    if len(owners) == 1:
        return VariantChoice(owners[0], f"no chain of the kubelet; chain {OWN_CHAIN} is in iptables-{owners[0]} only")
    where = "both variants have" if owners else "neither variant has"
    return VariantChoice(Variant.NFT, f"no chain of the kubelet, and {where} chain {OWN_CHAIN}: nft is the default")


def has_kubernetes_chains(run: Runner, variant: Variant) -> bool:
    """Whether a proxy or a kubelet has chains in this variant; false if its tools are missing or fail.

    Raises:
        HostError: We may not look.
    """
    chains = _chains(run, variant)
    return isinstance(chains, frozenset) and any(name.startswith("KUBE-") for name in chains)


def call(
    run: Runner,
    variant: Variant,
    family: Family,
    verb: str,
    arguments: tuple[str, ...] = (),
    *,
    stdin: str = "",
    timeout_s: float | None = READ_TIMEOUT_S,
) -> Completed:
    """Run `iptables-nft-save` and its like.

    If the tool with the variant in its name is missing, the plain one (`iptables-save`) is used if its version shows
    this variant.

    Args:
        run: Runs the tool.
        variant: The variant.
        family: The family; the tools of IPv6 start with `ip6tables`.
        verb: `save`, `restore`, or empty for the tool that changes one rule.
        arguments: Its arguments.
        stdin: The input of the tool.
        timeout_s: As in `Command`.

    Raises:
        MissingToolError: Neither is installed.
    """
    program = "iptables" if family is Family.IPV4 else "ip6tables"
    tail = f"-{verb}" if verb else ""
    try:
        return run(Command((f"{program}-{variant}{tail}", *arguments), stdin, timeout_s=timeout_s))
    except MissingToolError as missing:
        plain = f"{program}{tail}"
        try:
            version = run(Command((plain, "--version"))).stdout
        except MissingToolError:
            raise missing from None
        # before 1.8 there was one variant, and no word about it
        if variant_of(version) is not variant:
            raise
        return run(Command((plain, *arguments), stdin, timeout_s=timeout_s))


def missing_tool(run: Runner, variant: Variant, family: Family) -> MissingToolError | None:
    """Return the missing tool for a family; None if all are there. Some distributions package IPv6 tools separately.

    A tool that hangs is there.
    """
    for verb in ("save", "restore"):
        try:
            call(run, variant, family, verb, ("--version",), timeout_s=VERSION_S)
        except MissingToolError as missing:
            return missing
        except ToolTimeoutError:
            continue
    return None


def variant_of(version: str) -> Variant:
    """Return the variant of a version line such as `iptables v1.8.9 (nf_tables)`; versions before 1.8 are legacy.

    >>> variant_of("iptables-save v1.6.1").value
    'legacy'
    """
    return Variant.NFT if "(nf_tables)" in version else Variant.LEGACY


def _is_momentary(ended: Completed) -> bool:
    """Whether a failure says nothing about the kernel: a signal, a busy kernel, or no reason at all."""
    return ended.code < 0 or ended.code > _BY_SIGNAL or ended.code == _BUSY or not ended.stderr.strip()


def _chains(run: Runner, variant: Variant, families: tuple[Family, ...] = tuple(Family)) -> frozenset[str] | str:
    """Return the chains of both families that can be hints or ours, or the reason why the variant cannot be used.

    In nft these are the chains of table mangle, and our chain by name, because other tables may be large. In legacy all
    loaded tables are read, because a request for one table would load it.

    Raises:
        NoAccessError: We may not look.
        NoVariantError: A tool fails without a reason.
        ToolTimeoutError: A tool hangs.
    """
    chains: set[str] = set()
    for family in families:
        try:
            ended = call(run, variant, family, "save", ("-t", "mangle") if variant is Variant.NFT else ())
        except MissingToolError as missing:
            if family is families[0]:
                return missing.message
            continue  # no tool for IPv6: nobody wrote rules with it
        if ended.code != 0:
            hint = privilege_hint(ended.stderr)
            if hint:
                raise NoAccessError(f"iptables-{variant}: {ended.complaint}", hint=hint)
            if _is_momentary(ended):  # the rules may well be there
                raise NoVariantError(f"iptables-{variant} does not work now: {ended.complaint}")
            if family is families[0]:
                return f"iptables-{variant} does not work here: {ended.complaint}"
            continue  # a kernel without IPv6 ends here
        chains.update(line[1:].partition(" ")[0] for line in ended.stdout.splitlines() if line.startswith(":"))
        if variant is Variant.NFT and call(run, variant, family, "", ("-t", "nat", "-S", OWN_CHAIN)).code == 0:
            chains.add(OWN_CHAIN)
    return frozenset(chains)
