"""Dummy devices of this host and the addresses bound to them, over netlink with pyroute2.

Our device is created and stays down: its addresses are local addresses of the node, and no packet is sent over it.
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import privilege_hint
from rulegen.host.netlink import messages as netlink
from rulegen.languages.addresses.script import AddressCommand, AddressVerb
from rulegen.languages.addresses.state import BOUND, AddressKey, Links
from rulegen.net import family_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 200
_SCOPE_LINK: Final = 253
_KIND: Final = "dummy"
_ONLY_WHEN_ASKED: Final = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF, "cstamp": 0, "tstamp": 0}
"""Addresses are deprecated from the start (RFC 4862, 5.5.4): they accept packets, but are never chosen as source.

Otherwise a masqueraded packet could leave with the address of a Service, if that is nearer to the destination than the
node's own address (RFC 6724, 5, rule 8)."""
_NEW_ADDRESS, _DELETE_ADDRESS = 20, 21


class AddressesError(HostError):
    """The kernel rejected some commands for addresses; the others were executed.

    Attributes:
        refused: The commands, each with the kernel's errno.
    """

    def __init__(self, refused: Sequence[tuple[AddressCommand, int]], done: int, count: int) -> None:
        self.refused = tuple(refused)
        command, number = self.refused[0]
        super().__init__(
            f"`ip {command}`: {os.strerror(number)}; {done} of {count} were executed",
            hint=privilege_hint(os.strerror(number)),
        )


def observe(device: str) -> Links:
    """Return a device with its kind and its addresses, if it exists; addresses of scope link are left out.

    Raises:
        HostError: The device cannot be read.
    """
    try:
        is_there = any(name == device for _, name in socket.if_nameindex())
    except OSError as error:
        raise HostError(f"reading the device {device}: {error}") from error
    if not is_there:  # as in most modes, which need pyroute2 for nothing else
        return Links()
    from pyroute2 import IPRoute  # noqa: PLC0415 - takes 0.25 s and 10 MB; only ipvs mode needs it
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the same

    addresses = {}
    try:
        with IPRoute() as route:
            indexes = route.link_lookup(ifname=device)
            if not indexes:
                return Links()
            kind = _kind(route.get_links(indexes[0])[0])
            for message in route.get_addr(index=indexes[0]):
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                if text and message["scope"] != _SCOPE_LINK:
                    address = ip_address(text)
                    addresses[AddressKey(device, family_of(address), address, int(message["prefixlen"]))] = BOUND
    except (OSError, NetlinkError) as error:
        raise HostError(f"reading the device {device}: {error}") from error
    return Links({device: kind}, addresses)


def write(commands: Sequence[AddressCommand]) -> None:
    """Execute the commands in order. A command whose result already exists succeeds.

    Raises:
        AddressesError: The kernel rejected some addresses.
        HostError: The kernel rejected the device, or netlink failed.
    """
    done = 0
    while done < len(commands):
        command = commands[done]
        if command.address is None:
            _perform_device(command)
            done += 1
            continue
        run = next(
            (at for at in range(done, len(commands)) if commands[at].address is None or at - done == BATCH),
            len(commands),
        )
        _perform_addresses(commands, done, run)
        done = run


def _perform_device(command: AddressCommand) -> None:
    from pyroute2 import IPRoute  # noqa: PLC0415 - as above
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the same

    name = command.device
    try:
        with IPRoute() as route:
            index = next(iter(route.link_lookup(ifname=name)), None)
            if command.verb is AddressVerb.CREATE and index is None:
                route.link("add", ifname=name, kind=_KIND)
            elif command.verb is AddressVerb.CREATE:
                kind = _kind(route.get_links(index)[0])
                if kind != _KIND:
                    raise HostError(f"{name} is a device of the kind {kind or 'none'}, not {_KIND}")
            elif index is not None:
                route.link("del", index=index)
    except (OSError, NetlinkError) as error:
        number = int(getattr(error, "code", 0) or getattr(error, "errno", 0) or 0)
        hint = privilege_hint(os.strerror(number))
        if number == errno.EOPNOTSUPP:
            hint = f"load the module {_KIND} (`modprobe {_KIND}`)"
        raise HostError(f"`ip {command}`: {os.strerror(number)}", hint=hint) from error


def _perform_addresses(commands: Sequence[AddressCommand], start: int, end: int) -> None:
    names = {command.device for command in commands[start:end]}
    indexes = {}
    try:
        for name in names:
            indexes[name] = socket.if_nametoindex(name)
    except OSError:
        if all(command.verb is AddressVerb.UNBIND for command in commands[start:end]):
            return  # gone with its addresses
        raise HostError(
            f"there is no device {name}: `ip {commands[start]}` and the following commands were not executed"
        ) from None
    messages = [_encoded(command, indexes[command.device], at) for at, command in enumerate(commands[start:end])]
    try:
        with netlink.connect(netlink.ROUTE) as link:
            errnos = netlink.acknowledged(link, messages)
    except OSError as error:
        raise HostError(
            f"`ip {commands[start]}`: {error.strerror or error}; {start} of {len(commands)} were executed",
            hint=privilege_hint(str(error)),
        ) from error
    refused = [
        (command, number)
        for command, number in zip(commands[start:end], errnos, strict=True)
        if number not in {0, errno.EEXIST if command.verb is AddressVerb.BIND else errno.EADDRNOTAVAIL}
    ]
    if refused:
        raise AddressesError(refused, end - len(refused), len(commands))


def _encoded(command: AddressCommand, index: int, seq: int) -> bytes:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: PLC0415 - as above

    key = command.address
    assert key is not None  # noqa: S101 - for the type checker: commands of devices went another way
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if key.address.version == 4 else socket.AF_INET6
    message["prefixlen"], message["index"] = key.length, index
    message["attrs"] = [("IFA_LOCAL", str(key.address)), ("IFA_ADDRESS", str(key.address))]
    is_new = command.verb is AddressVerb.BIND
    if is_new and key.address.version == 6:
        message["attrs"].append(("IFA_CACHEINFO", _ONLY_WHEN_ASKED))
    message["header"]["type"] = _NEW_ADDRESS if is_new else _DELETE_ADDRESS
    flags = netlink.REQUEST | netlink.ACK
    message["header"]["flags"] = flags | (netlink.CREATE | netlink.EXCLUSIVE if is_new else 0)
    message["header"]["sequence_number"] = seq
    message.encode()
    return bytes(message.data)


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""
