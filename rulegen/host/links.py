"""Dummy devices on this host and what is bound to them, over netlink."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from rulegen.errors import HostError
from rulegen.languages.links.script import Verb
from rulegen.languages.links.state import BOUND, AddressKey, Links
from rulegen.net import family_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.languages.links.script import Command


def observe(device: str) -> Links:
    """Return a device, if it is there, and what is bound to it; addresses of scope link are left out.

    Raises:
        HostError: It cannot be read.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes 0.25 s; only live work needs it
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the same

    try:
        with IPRoute() as route:
            found = route.link_lookup(ifname=device)
            if not found:
                return Links()
            (link,) = route.get_links(found[0])
            info = link.get_attr("IFLA_LINKINFO")
            addresses: dict[AddressKey, Any] = {}
            for message in route.get_addr(index=found[0]):
                address = ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
                if not address.is_link_local:
                    addresses[AddressKey(device, family_of(address), address, int(message["prefixlen"]))] = BOUND
    except (OSError, NetlinkError) as error:
        raise HostError(f"reading the device {device}: {error}") from error
    return Links({device: str(info.get_attr("IFLA_INFO_KIND")) if info else ""}, addresses)


def write(commands: Sequence[Command]) -> None:
    """Do the commands in order; one whose effect is there already is no fault.

    Raises:
        HostError: One was refused; those before it were done.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes 0.25 s; only live work needs it
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the same

    with IPRoute() as route:
        indices: dict[str, int] = {}
        for command in commands:
            try:
                _do(route, command, indices)
            except NetlinkError as error:
                if error.code not in {errno.EEXIST, errno.EADDRNOTAVAIL, errno.ENODEV}:
                    raise HostError(f"ip {command}: {error}") from error


def _do(route: Any, command: Command, indices: dict[str, int]) -> None:
    device = command.device
    if command.verb is Verb.CREATE:
        route.link("add", ifname=device, kind="dummy")
        return
    if device not in indices:
        found = route.link_lookup(ifname=device)
        if not found:
            raise HostError(f"ip {command}: there is no device {device}")
        indices[device] = found[0]
    if command.address is None:
        route.link("del", index=indices[device])
    else:
        verb = "add" if command.verb is Verb.BIND else "del"
        key = command.address
        route.addr(verb, index=indices[device], address=str(key.address), prefixlen=key.length)
