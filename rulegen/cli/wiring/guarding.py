"""Protection of the tables of nftables mode from other programs, as `--nftables-owner` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rulegen.errors import ConfigError, HostError
from rulegen.host.commands.runner import run
from rulegen.ownership.nftables import FLAT, LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.agent.runtime.locks import AgentLocks
    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.host.dataplane.driver import Driver
    from rulegen.host.nftables.guard import TableGuard

owner_option = click.option(
    "--nftables-owner",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="In nftables mode with layout flat: while this command runs, no other program can change the table, not even"
    " as root. Needs Linux 6.9. auto: if the kernel can do this. off: release a table that an earlier command has"
    " protected.",
)


def guard_of(inputs: Inputs, owner: str) -> TableGuard | None:
    """Return what protects or releases the tables of this mode; None for nothing.

    Raises:
        ConfigError: Protection is demanded, but the mode or the layout has none.
        HostError: The kernel cannot protect tables.
    """
    if LAYOUTS.get(inputs.layout) is not FLAT:
        if owner == "on":
            raise ConfigError("--nftables-owner on needs nftables mode with layout flat", hint="use auto or off")
        return None
    from rulegen.host.nftables.guard import TableGuard  # noqa: PLC0415 - loads netlink, which not every mode needs

    guard = TableGuard(run, is_protected=owner != "off")
    if owner == "off":
        return guard
    try:
        is_possible = guard.is_possible()
    except HostError:
        if owner == "on":
            raise
        is_possible = False
    if is_possible:
        return guard
    guard.close()
    if owner == "on":
        raise HostError("this kernel cannot protect an nftables table", hint="use Linux 6.9, or --nftables-owner auto")
    return None


def guarded(inputs: Inputs, locks: AgentLocks, owner: str) -> Mapping[str, Driver]:
    """Return the drivers of an agent that keeps Services, also after a reload into nftables mode.

    With a guard that protects tables, its socket does all writes to them.

    Raises:
        ConfigError: Protection is demanded, but the mode or the layout has none.
        HostError: The kernel cannot protect tables.
    """
    drivers = inputs.command_tables.drivers
    if locks.tables is None and locks.services is not None:
        locks.tables = guard_of(inputs, owner)
    guard = locks.tables
    if guard is None or not guard.is_protected:
        return drivers
    from rulegen.host.dataplane.nftables_driver import NftablesDriver  # noqa: PLC0415 - as above

    driver = NftablesDriver(guard)
    return {**drivers, driver.name: driver}
