"""Interfaces of this host and their addresses over rtnetlink, and notices of changes (rtnetlink(7)).

pyroute2 is not used here: it takes three seconds for the 10,000 addresses that ipvs mode binds, and the agent reads
them whenever an address changes.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.netlink import messages
from rulegen.model.host.facts import SERVICE_DEVICE, Interface

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.net import Address

_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 16, 18, 20, 21, 22
_LINK: Final = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
_ADDRESS: Final = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index of the interface."""
_IFLA_IFNAME, _IFLA_EXT_MASK = 3, 29
_SKIP_STATISTICS: Final = struct.pack("=I", 8)
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TRIES: Final = 10
_GROUPS: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""


def interfaces() -> tuple[Interface, ...]:
    """Return all interfaces of this network namespace with their addresses, in the kernel's order.

    Interfaces that are down are included, and so is `kube-ipvs0`, which has the addresses of Services in ipvs mode:
    callers that need the node's own addresses must leave it out.

    Raises:
        HostError: The interfaces cannot be read.
    """
    error: OSError | None = None
    for _ in range(_TRIES):
        try:
            with messages.connect(messages.ROUTE) as link:
                return _interfaces(link)
        except InterruptedError as interrupted:  # something changed meanwhile: other entries may be missing
            error = interrupted
        except OSError as refused:
            error = refused
            break
    raise HostError(f"reading the network interfaces: {(error and error.strerror) or error}") from error


def _interfaces(link: socket.socket) -> tuple[Interface, ...]:
    names: dict[int, str] = {}
    wanted = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + messages.attribute(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    for body in messages.dump(link, messages.message(_GET_LINK, messages.DUMP, 1, wanted), is_whole=True):
        index, name = _link(body)
        names[index] = name
    addresses: dict[int, list[tuple[Address, int]]] = {index: [] for index in names}
    every = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for body in messages.dump(link, messages.message(_GET_ADDRESS, messages.DUMP, 2, every), is_whole=True):
        index, address, length = _address(body)
        if index in addresses and address is not None:  # otherwise the interface appeared between the two requests
            addresses[index].append((address, length))
    return tuple(Interface(names[index], tuple(addresses[index])) for index in names)


class AddressNotices:
    """Reports when an address of the node is added or removed, from a thread of its own.

    Addresses of Services, which ipvs mode binds to its own device, are not addresses of the node.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        """Start to listen.

        Args:
            changed: Called for each change, and if messages of the kernel were lost.

        Raises:
            HostError: The kernel refused the subscription.
        """
        self._changed = changed
        try:
            self._socket = messages.connect(messages.ROUTE, groups=_GROUPS)
        except OSError as error:
            raise HostError(f"the kernel does not report changes of addresses: {error.strerror or error}") from None
        self._socket.settimeout(None)
        self._service_device = _index_of(SERVICE_DEVICE)  # after the socket: a later device is reported
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="addresses", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._socket.close()

    def _listen(self) -> None:
        arrivals = select.poll()  # select takes no descriptor beyond 1023, and each Secret has a connection
        for source in (self._socket, self._woken):
            arrivals.register(source, select.POLLIN)
        while True:
            if self._woken.fileno() in dict(arrivals.poll()):
                return
            try:
                tells = [self._tells(kind, body) for kind, _, body in messages.split(self._socket.recv(1 << 16))]
            except OSError as error:
                # Lost or malformed messages: report a change, whatever it was.
                if error.errno in {errno.ENOBUFS, errno.EBADMSG}:
                    self._changed()
                continue
            if any(tells):
                self._changed()

    def _tells(self, kind: int, body: bytes) -> bool:
        """Whether a message reports an added or removed address of the node."""
        if kind == _NEW_LINK:
            index, name = _link(body)
            if name == SERVICE_DEVICE:
                self._service_device = index
            return False
        return kind in {_NEW_ADDRESS, _DELETE_ADDRESS} and _address(body)[0] != self._service_device


def _link(body: bytes) -> tuple[int, str]:
    """Return index and name of an interface."""
    index = _LINK.unpack_from(body)[2]
    name = messages.attributes_of(body[_LINK.size :]).get(_IFLA_IFNAME, b"")
    return index, name.rstrip(b"\0").decode("utf-8", "replace")


def _address(body: bytes) -> tuple[int, Address | None, int]:
    """Return the interface, address and prefix length in a message.

    On a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL ours.
    """
    _, length, _, _, index = _ADDRESS.unpack_from(body)
    attributes = messages.attributes_of(body[_ADDRESS.size :])
    content = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    return index, ip_address(content) if content else None, length


def _index_of(name: str) -> int:
    """Return the index of an interface; 0 if it does not exist."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
