"""iptables on this host: reads the rules as text, and writes scripts to the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.commands.runner import privilege_hint
from rulegen.host.netfilter import xtables_lock
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.netfilter.variant import Variant, call
from rulegen.languages.iptables.ruleset import TABLES, unprintable, unprintable_hint
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.host.commands.runner import Command, Runner

__all__ = ["LOCK_WAIT_S", "LockError", "RestoreError", "asks_late", "observe", "restore"]

LOCK_WAIT_S = 5
"""The time for which kube-proxy waits for the lock, in seconds."""

RESTORE_S = 30.0
LINE_S = 0.008
"""The time limit for a script after the lock is free, and for each of its lines.

The first load of 110,000 rules in one unsorted script takes up to 150 s.
"""


class LockError(HostError):
    """The xtables lock was not free in time; nothing was written.

    Attributes:
        holder: The process that held it, if known.
    """

    def __init__(self, wait_s: int, holder: xtables_lock.LockHolder | None) -> None:
        who = f": held by {holder}" if holder is not None else ""
        super().__init__(
            f"the xtables lock was not free within {wait_s} s{who}",
            hint="wait longer, or find out why the other program does not finish",
        )
        self.holder = holder


def observe(run: Runner, variant: Variant, family: Family, *, counters: bool = False) -> str:
    """Return the output of `iptables-save` for all loaded tables; no table is loaded for it.

    Args:
        run: What runs the tool.
        variant: The iptables variant.
        family: The address family.
        counters: Whether the output has packet and byte counters.

    Raises:
        HostError: The rules cannot be read completely, or one of our tables has rules that iptables cannot print.
    """
    ended = call(run, variant, family, "save", ("-c",) if counters else ())
    doing = f"reading the {family} rules of iptables-{variant}"
    if ended.code != 0:
        said = ended.complaint if ended.stderr.strip() else f"`{tool_of(variant, family, 'save')}`: {ended.complaint}"
        raise HostError(f"{doing}: {said}", hint=privilege_hint(ended.stderr))
    for table in TABLES:
        if f"# Table `{table}' is incompatible" in ended.stdout or f"# Table `{table}' is incompatible" in ended.stderr:
            raise HostError(f"{doing}: {unprintable(table)}", hint=unprintable_hint(table, family))
    if not _is_whole(ended.stdout):
        raise HostError(
            f"{doing}: the tool succeeded, but its output is incomplete",
            hint=f"check which `iptables-{variant}-save` this host has, and that its output is complete",
        )
    if variant is Variant.LEGACY and "*" not in ended.stdout:
        _refuse_blindness(family)
    return ended.stdout


def restore(
    run: Runner,
    variant: Variant,
    family: Family,
    text: str,
    on_wait: Callable[[str], None] | None = None,
    *,
    wait_s: int = LOCK_WAIT_S,
) -> None:
    """Write a script to the kernel. Each of its tables is written completely or not at all; other chains stay.

    Args:
        run: What runs the tool.
        variant: The iptables variant.
        family: The address family.
        text: The input of `iptables-restore --noflush`.
        on_wait: Called from another thread with each process that holds the lock, after a wait of 1 s.
        wait_s: The longest wait for the lock; 0 means without limit.

    Raises:
        LockError: The lock was not free in time. Nothing was written.
        RestoreError: The script was rejected. Tables before the offending line were written.
        HostError: The tool could not be run, or writing is not permitted.
    """
    arguments = ("--noflush", "-w", str(wait_s)) if wait_s else ("--noflush", "-w")
    locks_s = wait_s if variant is Variant.LEGACY else 0
    timeout_s = locks_s + RESTORE_S + LINE_S * text.count("\n") if wait_s else None
    if variant is Variant.NFT:
        ended, seen = call(run, variant, family, "restore", arguments, stdin=text, timeout_s=timeout_s), []
    else:
        caution = xtables_lock.close_to_others()
        if caution and on_wait is not None:
            on_wait(caution)
        with xtables_lock.watched(on_wait) as seen:
            ended = call(run, variant, family, "restore", arguments, stdin=text, timeout_s=timeout_s)
    if ended.code == 0:
        return
    if "holding the xtables lock" in ended.stderr:
        raise LockError(wait_s, seen[-1] if seen else xtables_lock.holder())
    hint = privilege_hint(ended.stderr)
    if hint:
        raise HostError(f"writing the {family} rules of iptables-{variant}: {ended.complaint}", hint=hint)
    command = " ".join((tool_of(variant, family, "restore"), *arguments))
    raise RestoreError(variant, family, text, code=ended.code, stderr=ended.stderr, command=command)


def tool_of(variant: Variant, family: Family, verb: str) -> str:
    """Return the name of a tool.

    >>> tool_of(Variant.NFT, Family.IPV6, "save")
    'ip6tables-nft-save'
    """
    return f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{variant}-{verb}"


def _is_whole(text: str) -> bool:
    """Return whether each printed table has its last line, and the output has its last comment if it has the first."""
    begun, ended = text.count("\n*") + text.startswith("*"), text.count("\nCOMMIT\n")
    heads = text.count("\n# Generated by ") + text.startswith("# Generated by ")
    return begun == ended and heads == text.count("\n# Completed on ")


def asks_late(command: Command) -> bool:
    """Whether a tool only waits until it has read its script, so that it can be started early."""
    return command.argv[0].endswith("-nft-restore")


def _refuse_blindness(family: Family) -> None:
    """Check that the list of tables can be read; otherwise the tool prints nothing and exits with 0.

    Raises:
        HostError: Reading is not permitted.
    """
    names = "ip_tables_names" if family is Family.IPV4 else "ip6_tables_names"
    path = Path("/proc/thread-self/net") / names
    try:
        path.read_bytes()
    except FileNotFoundError:
        return  # the kernel has no such tables
    except OSError as error:
        raise HostError(
            f"reading the {family} rules of iptables-legacy: {error}", hint=privilege_hint(str(error))
        ) from None
