"""The languages of this host, one row each."""

from __future__ import annotations

import errno
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.compiler.services.attribution import shape_of_line
from rulegen.compiler.services.ordering import Parameter
from rulegen.errors import HostError
from rulegen.host.dataplane.driver import Culprit, Preparation
from rulegen.host.dataplane.listeners_driver import ProxyDriver
from rulegen.host.dataplane.nftables_driver import NftablesDriver
from rulegen.host.ipvs import addresses, servers
from rulegen.host.ipvs.addresses import AddressesError
from rulegen.host.ipvs.servers import ServersError
from rulegen.host.netfilter import ipset, iptables
from rulegen.host.netfilter.ipset import SetError
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.routing import routes
from rulegen.host.routing.routes import RoutesError
from rulegen.host.userspace.notices import ProxyNotices
from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.addresses.language import ChangeAddresses
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.ipset.language import RestoreIpsets
from rulegen.languages.ipset.script import TEMPORARY
from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.language import RestoreRules
from rulegen.languages.iptables.ruleset import read
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.language import ChangeVirtualServers, SetIpvsTimeouts, WaitForDrain
from rulegen.languages.ipvs.state import IpvsState, RealServer, VirtualServer
from rulegen.languages.listeners.language import NAME as LISTENERS
from rulegen.languages.routes.language import NAME as ROUTES
from rulegen.languages.routes.language import ChangeRoutes
from rulegen.model.services.node.context import PROXY_TABLE
from rulegen.net import Family
from rulegen.ownership import ipsets, virtual_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Driver, ProgramNotices, ReadContext, WriteContext
    from rulegen.host.userspace.health_log import EndpointHealth
    from rulegen.languages.language import StateKey, Task

    NoticesMaker = Callable[
        [Callable[[str], None], Callable[[bool], None], Callable[[EndpointHealth], None]], ProgramNotices
    ]

DRAIN_S: Final = 10.0
"""Maximum time for connections of virtual servers to end when another mode takes over, in seconds."""
LOOK_S: Final = 0.3
_OUR_SETS: Final = frozenset({TEMPORARY, *(name for family in Family for name in ipsets.names(family))})
_MOMENTARY: Final = {errno.EPERM, errno.EACCES, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, errno.EBUSY}
_MOMENTARY_WORDS: Final = ("allocate memory", "Cannot open session", "not permitted", "denied", "in use")


class IptablesDriver:
    """Rules, by the tools of a variant."""

    name = IPTABLES
    tells_of_writes = True

    def read(self, context: ReadContext) -> dict[Family, str]:
        """Return the rules by family, as text."""
        return {family: iptables.observe(context.run, context.variant, family) for family in context.families}

    def states(self, raw: Mapping[Family, str], context: ReadContext) -> Mapping[StateKey, Any]:
        """Return the ruleset of each family."""
        source = f"iptables-{context.variant} on this host"
        return {(IPTABLES, family): read(text, source, family) for family, text in raw.items()}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that runs the tool."""
        return {RestoreRules: _restore}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the tools load what they need
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether a rule was rejected; a failed deletion does not count: the state must be read again."""
        if not isinstance(cause, RestoreError):
            return False
        return not (cause.is_momentary or cause.text.startswith(("-D", "-X", "-F")))

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services of the lines that the error names."""
        named: dict[str, Culprit] = {}
        if not isinstance(cause, RestoreError):
            return named
        for line in cause.named:
            owner = belongings.of_line(cause.family, line.table, line.text)
            named.setdefault(owner, Culprit(f"`{line.text}`: {line.complaint}", shape_of_line(line.text)))
        return named


def _restore(work: RestoreRules, context: WriteContext) -> None:
    variant = context.variant.other if work.beside else context.variant
    iptables.restore(context.run, variant, work.family, work.text, context.on_wait, wait_s=context.wait_s)
    if not work.beside:
        context.on_commits(work.commits)


class IpsetDriver:
    """Sets, by `ipset`."""

    name = IPSET
    tells_of_writes = False

    def read(self, context: ReadContext) -> Any:
        """Return all sets.

        If the mode uses none, return nothing unless a set of rulegen exists, because foreign sets may be large.
        """
        if IPSET in context.needed:
            return ipset.observe(context.run)
        try:
            return ipset.observe(context.run) if _OUR_SETS & set(ipset.names(context.run)) else {}
        except HostError:
            return None  # as on a host without ipset, which cannot have any sets

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the sets."""
        return {} if raw is None else {(IPSET, None): raw}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that runs the tool."""
        return {RestoreIpsets: lambda work, context: ipset.restore(context.run, work.text)}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the tool loads what it needs
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether the tool or the kernel rejects a set or an entry."""
        return isinstance(cause, SetError) and not any(word in cause.complaint for word in _MOMENTARY_WORDS)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Service of the entry that the error names."""
        if not isinstance(cause, SetError):
            return {}
        words = cause.text.split(" ")
        owner = belongings.of_object(IPSET, EntryKey(words[1], words[2])) if len(words) > 2 else ""
        return {owner: Culprit(f"`{cause.text}`: {cause.complaint}")}


class IpvsDriver:
    """Virtual servers, over netlink."""

    name = IPVS
    tells_of_writes = False

    def read(self, context: ReadContext) -> IpvsState:
        """Return all servers; also the timeouts if the mode uses them."""
        return IpvsState(servers.observe(), servers.timeouts() if IPVS in context.needed else None)

    def states(self, raw: IpvsState, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the servers."""
        return {(IPVS, None): raw}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that sends the messages."""
        return {
            ChangeVirtualServers: lambda work, _: servers.write(work.commands),
            WaitForDrain: lambda work, _: _wait(work),
            SetIpvsTimeouts: lambda work, _: servers.set_timeouts(work.timeouts),
        }

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:
        """Return the function that loads IPVS and schedulers, if a task needs it: missing schedulers are detected."""
        if not any(_needs_ipvs(task.work) for task in tasks):
            return None
        names = sorted({name for task in tasks for name in _schedulers(task.work)})
        return Preparation(" ".join(("IPVS", *names)), lambda: servers.load(run, names))

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether the kernel rejects a server."""
        return isinstance(cause, ServersError) and not any(number in _MOMENTARY for _, number in cause.refused)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services of the servers that the error names."""
        named: dict[str, Culprit] = {}
        for server, number in cause.refused if isinstance(cause, ServersError) else ():
            owner = belongings.of_object(IPVS, server.key)
            named.setdefault(owner, Culprit(f"IPVS rejected `{server}`: {servers.reason(server, number)}"))
        return named


def _needs_ipvs(work: Any) -> bool:
    """Whether the task needs IPVS."""
    return isinstance(work, ChangeVirtualServers | SetIpvsTimeouts) or (
        isinstance(work, Parameter) and work.name in servers.PARAMETERS
    )


def _schedulers(work: Any) -> Iterator[str]:
    """Yield the schedulers that a task makes virtual servers use."""
    if isinstance(work, ChangeVirtualServers):
        yield from (c.value.scheduler for c in work.commands if isinstance(c.value, VirtualServer))


def _wait(work: WaitForDrain) -> None:
    """Wait until virtual servers have no established connection, at most for `DRAIN_S`.

    Raises:
        HostError: They cannot be read.
    """
    until = time.monotonic() + DRAIN_S
    while time.monotonic() < until:
        time.sleep(LOOK_S)  # also before the first read: a handshake does not count as a connection yet
        there = servers.observe().items()
        if not any(
            key.frontend in work.frontends and isinstance(value, RealServer) and value.active for key, value in there
        ):
            return


class LinksDriver:
    """The dummy device and its addresses, over netlink."""

    name = LINKS
    tells_of_writes = False

    def read(self, context: ReadContext) -> Any:  # noqa: ARG002 - the same for all
        """Return the device and its addresses, unparsed."""
        return addresses.observe(virtual_servers.DEVICE)

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the device and its addresses."""
        return {(LINKS, None): raw}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that sends the messages."""
        return {ChangeAddresses: lambda work, _: addresses.write(work.commands)}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the kernel loads what it needs
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether the kernel rejects an address."""
        return isinstance(cause, AddressesError) and not any(number in _MOMENTARY for _, number in cause.refused)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:
        """Return the Services of the addresses that the error names."""
        named: dict[str, Culprit] = {}
        for command, number in cause.refused if isinstance(cause, AddressesError) else ():
            owner = belongings.of_object(LINKS, command.address)
            named.setdefault(owner, Culprit(f"`ip {command}`: {errno.errorcode.get(number, number)}"))
        return named


class RoutesDriver:
    """Policy routing, over netlink."""

    name = ROUTES
    tells_of_writes = False

    def read(self, context: ReadContext) -> Any:  # noqa: ARG002 - the same for all
        """Return the rules and routes of our routing table, unparsed."""
        return routes.observe(PROXY_TABLE)

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return the rules and routes."""
        return {(ROUTES, None): raw}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the function that sends the messages."""
        return {ChangeRoutes: lambda work, _: routes.write(work.commands)}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - the kernel has it built in
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether the kernel rejects a rule or route."""
        return isinstance(cause, RoutesError) and cause.number not in _MOMENTARY

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:  # noqa: ARG002 - the node alone
        """Return nothing: these objects are the node's own."""
        return {}


DRIVERS: Final[Mapping[str, Driver]] = MappingProxyType(
    {
        row.name: row
        for row in (
            IptablesDriver(),
            NftablesDriver(),
            LinksDriver(),
            IpsetDriver(),
            IpvsDriver(),
            RoutesDriver(),
            ProxyDriver(),
        )
    }
)
"""By language."""

FOLLOWED: Final[Mapping[str, NoticesMaker]] = MappingProxyType({LISTENERS: ProxyNotices})
"""By language, what reports the end of the program that serves its objects; other languages are the kernel's."""
