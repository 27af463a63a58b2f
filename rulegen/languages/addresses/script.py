"""The commands that make changes of devices and addresses, in order; each knows how `ip -batch` spells it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.diff.changes import Change
    from rulegen.languages.addresses.state import AddressKey, Bound


class AddressVerb(enum.Enum):
    """What is done to a device or to an address on it."""

    CREATE = "link add"
    BIND = "addr add"
    UNBIND = "addr del"
    DELETE = "link del"


class AddressCommand(NamedTuple):
    """One thing to do.

    Attributes:
        verb: CREATE and DELETE concern the device itself, which is a dummy; BIND and UNBIND an address on it.
        device: Its name.
        address: For BIND and UNBIND.
    """

    verb: AddressVerb
    device: str
    address: AddressKey | None = None

    def __str__(self) -> str:
        """Return it as a line for `ip -batch`."""
        if self.address is not None:
            return f"{self.verb.value} {self.address} dev {self.device}"
        return f"{self.verb.value} {self.device}" + (" type dummy" if self.verb is AddressVerb.CREATE else "")


class AddressScript(NamedTuple):
    """Commands in order: `bind` when all that answers on the addresses is ready, `unbind` before it goes."""

    bind: tuple[AddressCommand, ...] = ()
    unbind: tuple[AddressCommand, ...] = ()


def script(changes: Iterable[Change[AddressKey, Bound]]) -> AddressScript:
    """Return the commands that make the changes of addresses."""
    bind, unbind = [], []
    for change in changes:
        if change.after is None:
            unbind.append(AddressCommand(AddressVerb.UNBIND, change.key.device, change.key))
        else:
            bind.append(AddressCommand(AddressVerb.BIND, change.key.device, change.key))
    return AddressScript(tuple(bind), tuple(unbind))
