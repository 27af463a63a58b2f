"""The commands for changes of devices and addresses, in order, and their text for `ip -batch`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.diff.changes import Change
    from rulegen.languages.addresses.state import AddressKey, Bound


class AddressVerb(enum.Enum):
    """The verb of a command for a device or for an address on it."""

    CREATE = "link add"
    BIND = "addr add"
    UNBIND = "addr del"
    DELETE = "link del"


class AddressCommand(NamedTuple):
    """One command.

    Attributes:
        verb: CREATE and DELETE concern the device itself, which is a dummy; BIND and UNBIND an address on it.
        device: The name of the device.
        address: The address, for BIND and UNBIND.
    """

    verb: AddressVerb
    device: str
    address: AddressKey | None = None

    def __str__(self) -> str:
        """Return the command as a line for `ip -batch`."""
        if self.address is not None:
            return f"{self.verb.value} {self.address} dev {self.device}"
        return f"{self.verb.value} {self.device}" + (" type dummy" if self.verb is AddressVerb.CREATE else "")


class AddressScript(NamedTuple):
    """Commands in order: `bind` after the servers on the addresses are ready, `unbind` before these are removed."""

    bind: tuple[AddressCommand, ...] = ()
    unbind: tuple[AddressCommand, ...] = ()


def script(changes: Iterable[Change[AddressKey, Bound]]) -> AddressScript:
    """Return the commands for changes of addresses."""
    bind, unbind = [], []
    for change in changes:
        if change.after is None:
            unbind.append(AddressCommand(AddressVerb.UNBIND, change.key.device, change.key))
        else:
            bind.append(AddressCommand(AddressVerb.BIND, change.key.device, change.key))
    return AddressScript(tuple(bind), tuple(unbind))
