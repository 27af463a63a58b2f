"""IPVS on this host: its servers and their changes, its timeouts, and the available schedulers. See linux/ip_vs.h.

Changes are messages of pyroute2, encoded by it and sent in batches, so that the kernel answers each of them; its own
way of one call for each message takes ten times as long, and `ipvsadm -R` hides what was rejected. Reading requests raw
attributes: pyroute2's objects mix the kernel's values with defaults.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.namespace import NamespaceError, in_throwaway_namespace
from rulegen.host.commands.runner import Command as ToolCommand
from rulegen.host.commands.runner import MissingToolError, privilege_hint
from rulegen.host.ipvs import messages
from rulegen.host.netlink import messages as netlink
from rulegen.host.netlink.messages import attribute, attributes_of
from rulegen.languages.ipvs.script import IpvsCommand, IpvsVerb
from rulegen.languages.ipvs.state import (
    Frontend,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.net import Protocol
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.host.commands.runner import Runner
    from rulegen.languages.ipvs.state import Objects

BATCH: Final = 200
"""The number of messages in one batch."""

PROBED: Final = VirtualServerKey(Frontend.of(Protocol.TCP, IPv4Address("198.51.100.0"), 20000))
"""The virtual server for testing schedulers, with kube-proxy's documentation address (RFC 5737)."""

PARAMETERS: Final[Mapping[str, str]] = {
    "net.ipv4.vs.conn_reuse_mode": "1",
    "net.ipv4.vs.conntrack": "0",
    "net.ipv4.vs.expire_nodest_conn": "0",
    "net.ipv4.vs.expire_quiescent_template": "0",
}
"""Kernel parameters that exist only with the module, and their initial values."""

_FIRST_TIMEOUTS: Final = Timeouts(tcp=900, tcp_fin=120, udp=300)
_MODULE: Final = "ip_vs"
_NAME: Final = b"IPVS\0"
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_GET_SERVICE, _GET_DESTINATION, _SET_CONFIG, _GET_CONFIG = 4, 8, 12, 13
_GENERIC: Final = struct.Struct("=BBH")
_SCHEDULER_FILE: Final = re.compile(rf"\b{_MODULE}_(?P<name>\w+)\.ko")
_NO_SCHEDULERS: Final = frozenset({"ftp", "pe_sip"})
_PROVEN: Final[set[str]] = set()
"""Schedulers that this process has tested; their modules stay loaded."""
_NO_IPVS: Final = "this kernel has no IPVS"
_GONE: Final = {errno.ESRCH, errno.ENOENT}
_ADDED: Final = {IpvsVerb.ADD_SERVICE: IpvsVerb.EDIT_SERVICE, IpvsVerb.ADD_DESTINATION: IpvsVerb.EDIT_DESTINATION}
_DELETED: Final = {IpvsVerb.DELETE_SERVICE, IpvsVerb.DELETE_DESTINATION}


class SchedulerError(HostError):
    """The kernel has no such scheduler.

    Attributes:
        scheduler: Its name.
    """

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        super().__init__(
            f"IPVS has no scheduler {scheduler!r}: the kernel has no such scheduler",
            hint=f"load the module {_MODULE}_{scheduler}, or choose another",
        )


class ServersError(HostError):
    """IPVS rejected some commands; the others were executed.

    Attributes:
        refused: The commands, each with the kernel's errno.
    """

    def __init__(self, refused: Sequence[tuple[IpvsCommand, int]], count: int) -> None:
        self.refused = tuple(refused)
        command, number = self.refused[0]
        more = f", and {len(self.refused) - 1} more" if len(self.refused) > 1 else ""
        super().__init__(
            f"IPVS rejected `{command}`{more}: {reason(command, number)}; "
            f"{count - len(self.refused)} of {count} were executed",
            hint=privilege_hint(os.strerror(number)),
        )


def is_loaded() -> bool:
    """Return whether IPVS is loaded; without it there are no virtual servers. Loads no module.

    Raises:
        HostError: The kernel rejected the request.
    """
    with _connected("looking for IPVS") as link:
        return link is not None


def observe() -> Objects:
    """Return all virtual and real servers of this network namespace, except virtual servers of firewall marks.

    Real servers have the number of their active and inactive connections. Without IPVS there are none; no module is
    loaded.

    Raises:
        HostError: The servers cannot be read.
    """
    objects: Objects = {}
    with _connected("reading virtual servers") as link:
        if link is None:
            return objects
        for entry in list(link.dump(_GET_SERVICE)):
            service = attributes_of(entry.get(messages.SERVICE, b""))
            frontend = messages.frontend_of(service)
            if frontend is None:
                continue
            objects[VirtualServerKey(frontend)] = messages.virtual_server_of(service)
            for answer in link.dump(_GET_DESTINATION, messages.naming(service)):
                destination = attributes_of(answer.get(messages.DESTINATION, b""))
                key = messages.real_server_key_of(frontend, service, destination)
                objects[key] = messages.real_server_of(destination)
    return objects


def timeouts() -> Timeouts:
    """Return the connection timeouts; without IPVS, the initial values that it would have.

    Raises:
        HostError: The timeouts cannot be read.
    """
    with _connected("reading the timeouts of IPVS") as link:
        if link is None:
            return _FIRST_TIMEOUTS
        answer = link.ask(_GET_CONFIG)
    return messages.timeouts_of(answer)


def write(commands: Sequence[IpvsCommand]) -> None:
    """Execute the commands in order. A command whose result already exists succeeds.

    Raises:
        ServersError: The kernel rejected some of them.
        HostError: The kernel has no IPVS.
    """
    if not commands:
        return
    with _connected("writing virtual servers") as link:
        if link is None:
            raise HostError(_NO_IPVS, hint=_hint())
        errnos = link.send(commands)
        again = [at for at, number in enumerate(errnos) if number == errno.EEXIST and commands[at].verb in _ADDED]
        edits = [commands[at]._replace(verb=_ADDED[commands[at].verb]) for at in again]
        for at, number in zip(again, link.send(edits), strict=True):
            errnos[at] = number
    refused = [
        (command, number)
        for command, number in zip(commands, errnos, strict=True)
        if number and not (command.verb in _DELETED and number in _GONE)
    ]
    if refused:
        raise ServersError(refused, len(commands))


def set_timeouts(values: Timeouts) -> None:
    """Set the connection timeouts in seconds; 0 leaves a timeout as it is.

    Raises:
        HostError: The kernel has no IPVS, or rejected the values.
    """
    with _connected("setting the timeouts of IPVS") as link:
        if link is None:
            raise HostError(_NO_IPVS, hint=_hint())
        link.change(_SET_CONFIG, messages.setting(values))


def load(run: Runner, names: Iterable[str] = ()) -> None:
    """Load IPVS and these schedulers if they are missing. No packet is served.

    Schedulers are tested with a virtual server in a temporary network namespace. If none can be created, the virtual
    server is created in this namespace and deleted at once, unless it exists already.

    Args:
        run: What runs modprobe.
        names: The schedulers.

    Raises:
        SchedulerError: The kernel does not have one of the schedulers.
        HostError: The kernel has no IPVS, or no scheduler can be tested.
    """
    if not is_loaded():
        try:
            ended = run(ToolCommand(("modprobe", _MODULE)))
            said = ended.complaint if ended.code else "modprobe found no module"
        except MissingToolError as missing:
            said = missing.message
        if not is_loaded():
            raise HostError(f"{_NO_IPVS}, and it cannot be loaded: {said}", hint=_hint())
    wanted = tuple(sorted(set(names) - _PROVEN))

    def probe() -> None:
        for name in wanted:
            _probe(name)
            _PROVEN.add(name)

    if not wanted:
        return
    try:
        in_throwaway_namespace(probe)
    except NamespaceError:
        probe()


def schedulers() -> frozenset[str] | None:
    """Return the schedulers that this kernel has or could load; None if this is unknown.

    They are found by loaded modules and those in /lib/modules. If neither can be read, such as in a container, the
    kernel may have any scheduler.
    """
    release = os.uname().release
    folder = Path("/lib/modules", release)
    loaded = {path.name.removeprefix(f"{_MODULE}_") for path in Path("/sys/module").glob(f"{_MODULE}_*")}
    listed = ""
    for name in ("modules.dep", "modules.builtin"):
        path = folder / name
        if path.is_file():
            listed += read_kernel_text(path)
    if not listed and not Path("/sys/module", _MODULE).exists():
        return None if not folder.is_dir() else frozenset()
    if not listed:
        return None
    known = {match["name"] for match in _SCHEDULER_FILE.finditer(listed)} | loaded
    return frozenset(known - _NO_SCHEDULERS)


def _probe(name: str) -> None:
    """Create a virtual server with this scheduler, and delete it."""
    with _connected(f"trying the scheduler {name}") as link:
        if link is None:
            raise HostError(_NO_IPVS, hint=_hint())
        (number,) = link.send([IpvsCommand(IpvsVerb.ADD_SERVICE, PROBED, VirtualServer(name))])
        if number == errno.EEXIST:
            (number,) = link.send([IpvsCommand(IpvsVerb.EDIT_SERVICE, PROBED, VirtualServer(name))])
            if number == 0:
                return
        if number == errno.ENOENT:
            raise SchedulerError(name)
        if number:
            raise HostError(
                f"IPVS cannot try the scheduler {name!r}: {os.strerror(number)}",
                hint=privilege_hint(os.strerror(number)),
            )
        link.send([IpvsCommand(IpvsVerb.DELETE_SERVICE, PROBED)])


class _Link:
    """A netlink socket to IPVS; the kernel assigns the number of the IPVS family in generic netlink."""

    def __init__(self, link: socket.socket, family: int) -> None:
        self._link, self._family = link, family

    def dump(self, verb: int, attributes: bytes = b"") -> Iterator[dict[int, bytes]]:
        request = netlink.message(self._family, netlink.DUMP, 1, _GENERIC.pack(verb, 1, 0) + attributes)
        return (attributes_of(body[4:]) for body in netlink.dump(self._link, request))

    def ask(self, verb: int) -> dict[int, bytes]:
        request = netlink.message(self._family, 0, 1, _GENERIC.pack(verb, 1, 0))
        return attributes_of(netlink.ask(self._link, request)[4:])

    def change(self, verb: int, attributes: bytes) -> None:
        request = netlink.message(self._family, netlink.ACK, 0, _GENERIC.pack(verb, 1, 0) + attributes)
        (number,) = netlink.acknowledged(self._link, [request])
        if number:
            raise OSError(number, os.strerror(number))

    def send(self, commands: Sequence[IpvsCommand]) -> list[int]:
        """Return the kernel's errno for each command; 0 means success."""
        encode = messages.encoder(self._family) if commands else None
        errnos: list[int] = []
        for start in range(0, len(commands), BATCH):
            batch = commands[start : start + BATCH]
            assert encode is not None  # noqa: S101 - for the type checker: there are commands
            errnos += netlink.acknowledged(self._link, [encode(command, at) for at, command in enumerate(batch)])
        return errnos


@contextmanager
def _connected(doing: str) -> Iterator[_Link | None]:
    """Yield a socket to IPVS, or None where the kernel has none; say what was being done where it rejects.

    Raises:
        HostError: The kernel rejected.
    """
    try:
        with netlink.connect(netlink.GENERIC) as link:
            family = _family_number(link)
            yield None if family is None else _Link(link, family)
    except OSError as error:
        raise HostError(f"{doing}: {error.strerror or error}", hint=privilege_hint(str(error))) from error


def _family_number(link: socket.socket) -> int | None:
    body = _GENERIC.pack(_GET_FAMILY, 1, 0) + attribute(_FAMILY_NAME, _NAME)
    try:
        answer = attributes_of(netlink.ask(link, netlink.message(_CONTROL, 0, 1, body))[4:])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return int(struct.unpack("=H", answer[_FAMILY_ID])[0])


def reason(command: IpvsCommand, number: int) -> str:
    """Return the reason for an errno, in words."""
    match command.verb, number:
        case ((IpvsVerb.ADD_SERVICE | IpvsVerb.EDIT_SERVICE), errno.ENOENT):
            return "the kernel has no such scheduler"
        case ((IpvsVerb.EDIT_SERVICE | IpvsVerb.ADD_DESTINATION | IpvsVerb.EDIT_DESTINATION), errno.ESRCH):
            return "there is no such virtual server"
        case IpvsVerb.EDIT_DESTINATION, errno.ENOENT:
            return "there is no such real server"
        case _:
            return os.strerror(number)


def _hint() -> str:
    return f"load the module {_MODULE} (`modprobe {_MODULE}`), or use another mode"
