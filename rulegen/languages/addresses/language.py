"""The language of network devices: a dummy device, and the addresses bound to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.diff.items import Drift
from rulegen.languages.addresses.script import AddressCommand, AddressVerb, script
from rulegen.languages.addresses.state import AddressKey, DeviceKey, Links, format_links
from rulegen.languages.keyed import KeyedLanguage, SharedHolder
from rulegen.languages.language import Phase, Print, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.language import FrontendKey, Objects, Part, PrintScope, Scene, StateKey, WorkTerms
    from rulegen.net import Family

NAME = "links"


class ChangeAddresses(msgspec.Struct, frozen=True):
    """Commands for devices and their addresses, in order."""

    commands: tuple[AddressCommand, ...]


class AddressesHolder(SharedHolder):
    """Finds the bound addresses of a Service; other Services may have them too."""

    def held(self, content: Mapping[Any, Any], frontends: Collection[FrontendKey]) -> Objects | None:
        """Return the bound addresses of a Service; None if it has no frontend in the kernel."""
        return {key: value for key, value in content.items() if frontends and key in self._ours} or None


class Addresses(KeyedLanguage):
    """The row of network devices in the table of languages."""

    name = NAME

    def __init__(self, device: str) -> None:
        """Take the name of the device."""
        self._device = device

    def empty(self, families: Iterable[Family]) -> Mapping[StateKey, Any]:  # noqa: ARG002 - one state for all
        """Return the state of an empty kernel."""
        return {(NAME, None): Links()}

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return f"addresses (ip -br addr show {self._device})" if state is None else ""

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> AddressesHolder:  # noqa: ARG002 - the keys tell
        """Return what finds the addresses of a Service in `ours`."""
        return AddressesHolder(ours, others)

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        return ("address", f"{key} on {key.device}") if isinstance(key, AddressKey) else ("device", key.name)

    def text(self, key: Any, value: Any) -> str:
        """Return the address, or the kind of the device."""
        return str(key) if isinstance(key, AddressKey) else f"{value} device"

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return MISSING if another program has certainly removed an address."""
        if not isinstance(change.key, AddressKey) or change.before is not None:
            return None
        return Drift.MISSING if scene.around.was_there(NAME, change.key) else None

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield each device in the format of `ip -br addr`, and its addresses for `ip -batch`."""
        devices = [key.name for key in wanted.objects if isinstance(key, DeviceKey)]
        keys = sorted(key for key in wanted.objects if isinstance(key, AddressKey))
        for device in devices:
            addresses = [key for key in keys if key.device == device]
            commands = [
                AddressCommand(AddressVerb.CREATE, device),
                *(AddressCommand(AddressVerb.BIND, device, key) for key in addresses),
            ]
            yield Print(f"{device}.addr", format_links([device], addresses), "addresses")
            yield Print(f"{device}.batch", "".join(f"{command}\n" for command in commands))

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:  # noqa: ARG002 - always the same order
        """Yield the commands: a device is created before its addresses and deleted after them."""
        for family, part in parts.items():
            if family is None:
                for name, _, after in ((change.key.name, *change[1:]) for change in part.changes):
                    verb = AddressVerb.DELETE if after is None else AddressVerb.CREATE
                    phase = Phase.DEVICES_REMOVED if after is None else Phase.DEVICES_ADDED
                    yield Task(phase, f"{verb.value} {name}", ChangeAddresses((AddressCommand(verb, name),)))
                continue
            bind, unbind = script(part.changes)
            if bind:
                yield Task(Phase.ADDRESSES_BOUND, f"{family} addresses, bound: {len(bind)}", ChangeAddresses(bind))
            if unbind:
                title = f"{family} addresses, unbound: {len(unbind)}"
                yield Task(Phase.ADDRESSES_UNBOUND, title, ChangeAddresses(unbind))
