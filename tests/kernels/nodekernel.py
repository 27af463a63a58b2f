"""A node's kernel in memory: iptables, nftables, ipsets, IPVS and a dummy device, each executing what it is fed.

It refuses what a real one refuses: a rule that names a set that is not there, destroying a set that a rule names, a
real server without its virtual server, an address on no device. What it holds is read back through the tools' prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.ordering import Parameter, tasks
from rulegen.languages.addresses import script as links_script
from rulegen.languages.addresses import state as links
from rulegen.languages.addresses.language import ChangeAddresses
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import RestoreIpsets
from rulegen.languages.iptables.language import RestoreRules
from rulegen.languages.iptables.ruleset import read
from rulegen.languages.ipvs import state as ipvs
from rulegen.languages.ipvs import text as ipvs_text
from rulegen.languages.ipvs.language import ChangeVirtualServers
from rulegen.languages.ipvs.script import IpvsCommand, IpvsVerb
from rulegen.languages.nftables.language import ChangeTables
from rulegen.languages.nftables.state import NamedSet, NftChain, NftObjects, ObjectKind
from rulegen.net import Family
from rulegen.plan.plan import Plan
from tests.kernels.kernel import Kernel, RefusedError, commits
from tests.kernels.observed import observing


@dataclass
class NodeKernel:
    """All of it.

    Attributes:
        sets: By name: what it is, and its entries with their options.
        connections: How many each real server has; those not in it have as many as nobody counted.
        beside: The tables of the other variant of iptables.
        parameters: Kernel parameters by name.
        fixed: Names of those that cannot be set.
        tables: The objects of nftables.
    """

    kernels: dict[Family, Kernel] = field(default_factory=lambda: {family: Kernel() for family in Family})
    sets: dict[str, tuple[ipset.SetValue, dict[str, str]]] = field(default_factory=dict)
    servers: ipvs.Objects = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    addresses: links.Objects = field(default_factory=dict)
    connections: dict[ipvs.RealServerKey, int] = field(default_factory=dict)
    beside: dict[Family, Kernel] = field(default_factory=lambda: {family: Kernel() for family in Family})
    parameters: dict[str, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    tables: dict[Family, NftObjects] = field(default_factory=lambda: {family: {} for family in Family})

    def write(self, plan: Plan, *, chains_per_commit: int | None = None) -> int:
        """Make a plan so; return how many pieces it took."""
        return sum(1 for piece in self.pieces(plan, chains_per_commit=chains_per_commit) if piece() is None)

    def pieces(self, plan: Plan, *, chains_per_commit: int | None = None) -> Iterator[Callable[[], None]]:
        """Yield what makes a plan so in the smallest pieces that a real kernel takes as a whole."""
        for task in tasks(plan, chains_per_commit=chains_per_commit):
            yield from self._pieces(task.work)

    def _pieces(self, work: object) -> Iterator[Callable[[], None]]:
        match work:
            case RestoreRules(family, text, False):
                yield from (partial(self._commit, family, commit) for commit in commits(text))
            case RestoreRules(family, text, True):
                yield from (partial(self.beside[family].commit, commit) for commit in commits(text))
            case Parameter(name, value):
                yield partial(self._set_parameter, name, value)
            case RestoreIpsets(text):
                yield from (partial(self._set_line, line) for line in text.splitlines())
            case ChangeVirtualServers(commands):
                yield from (partial(self._serve, command) for command in commands)
            case ChangeAddresses(commands):
                yield from (partial(self._bind, command) for command in commands)
            case ChangeTables():
                yield partial(self._transact, work)
            case _:
                pass

    def observed(self, *families: Family) -> Observed:
        """Return what is there, as the tools print it."""
        objects: ipset.Objects = {}
        for name, (value, entries) in self.sets.items():
            objects[ipset.SetKey(name)] = value
            objects |= {ipset.EntryKey(name, entry): ipset.EntryValue(value) for entry, value in entries.items()}
        servers = ipvs_text.read(ipvs_text.format_servers(self.servers), "kernel")
        for key, value in servers.items():
            if isinstance(key, ipvs.RealServerKey) and isinstance(value, ipvs.RealServer):
                servers[key] = replace(value, connections=self.connections.get(key))
        return observing(
            rulesets={f: read(self.kernels[f].save(), "kernel", f) for f in families or tuple(Family)},
            sets=ipset.read(ipset.format_sets(objects), "kernel"),
            servers=servers,
            links=links.read(links.format_links(self.devices, self.addresses), "kernel"),
            beside={
                family: read(kernel.save(), "kernel", family)
                for family, kernel in self.beside.items()
                if any(chain.startswith("KUBE-") for chains in kernel.tables.values() for chain in chains)
            },
            tables={family: dict(self.tables[family]) for family in families or tuple(Family)},
        )

    def dump(self) -> tuple[object, ...]:
        """Return all that is there, for comparing."""
        return (
            {family: kernel.save() for family, kernel in self.kernels.items()},
            {name: (value, dict(entries)) for name, (value, entries) in self.sets.items()},
            dict(self.servers),
            dict(self.devices),
            dict(self.addresses),
            {family: dict(objects) for family, objects in self.tables.items()},
        )

    def _transact(self, work: ChangeTables) -> None:
        """Make a transaction; tables, chains and sets that go are left for the last one."""
        objects = self.tables[work.family]
        tables = {key.table for key, _, after in work.changes if key.kind is ObjectKind.TABLE and after is None}
        for key, before, after in work.changes:
            is_late = key.table in tables or (after is None and isinstance(before, NftChain | NamedSet))
            if is_late is not work.is_removal:
                continue
            if after is None:
                del objects[key]
            else:
                objects[key] = after

    def _commit(self, family: Family, lines: list[str]) -> None:
        for line in lines:
            _, separator, rest = line.partition("--match-set ")
            if separator and line.startswith(("-A", "-I")) and rest.split(" ")[0] not in self.sets:
                raise RefusedError(f"no such set: {line}")
        self.kernels[family].commit(lines)

    def _set_parameter(self, name: str, value: str) -> None:
        if name in self.fixed:
            raise RefusedError(f"{name} = {value}: Read-only file system")
        self.parameters[name] = value

    def _names(self, name: str) -> bool:
        return any(
            f"--match-set {name} " in rule
            for kernel in (*self.kernels.values(), *self.beside.values())
            for chains in kernel.tables.values()
            for rules in chains.values()
            for rule in rules
        )

    def _set_line(self, line: str) -> None:
        word, name, *rest = line.split(" ")
        match word:
            case "create":
                ((_, value),) = ipset.read(line, "kernel").items()
                known = self.sets.get(name)
                if known is not None and known[0] != value:
                    raise RefusedError(f"set with the same name already exists: {line}")
                if known is None:
                    self.sets[name] = (value, {})
            case "destroy":
                if self._names(name):
                    raise RefusedError(f"set is in use: {line}")
                del self.sets[name]
            case "swap":
                (other,) = rest
                mine, theirs = self.sets[name], self.sets[other]
                if (mine[0].type, mine[0].family) != (theirs[0].type, theirs[0].family):
                    raise RefusedError(f"types differ: {line}")
                self.sets[name], self.sets[other] = theirs, mine
            case "add" | "del" if name not in self.sets:
                raise RefusedError(f"no such set: {line}")
            case "add":
                value, entries = self.sets[name]
                if value.is_hash and rest[0] not in entries and len(entries) >= value.maxelem:
                    raise RefusedError(f"hash is full: {line}")
                self.sets[name][1][rest[0]] = " ".join(rest[1:])
            case "del":
                self.sets[name][1].pop(rest[0], None)
            case _:
                raise RefusedError(f"unknown: {line}")

    def _serve(self, command: IpvsCommand) -> None:
        verb, key, value = command
        virtual = ipvs.VirtualServerKey(key.frontend)
        if verb is not IpvsVerb.ADD_SERVICE and virtual not in self.servers:
            raise RefusedError(f"no such virtual server: {command}")
        match verb:
            case IpvsVerb.DELETE_SERVICE:
                for other in [other for other in self.servers if other.frontend == key.frontend]:
                    del self.servers[other]
            case IpvsVerb.DELETE_DESTINATION:
                del self.servers[key]
            case _:
                if verb is IpvsVerb.EDIT_DESTINATION and key not in self.servers:
                    raise RefusedError(f"no such real server: {command}")
                assert value is not None
                self.servers[key] = value

    def _bind(self, command: links_script.AddressCommand) -> None:
        verb, device, address = command
        match verb:
            case links_script.AddressVerb.CREATE:
                self.devices[device] = "dummy"
            case links_script.AddressVerb.DELETE:
                del self.devices[device]
                self.addresses = {key: value for key, value in self.addresses.items() if key.device != device}
            case _ if device not in self.devices:
                raise RefusedError(f"no such device: {command}")
            case links_script.AddressVerb.BIND:
                assert address is not None
                self.addresses[address] = links.BOUND
            case links_script.AddressVerb.UNBIND:
                assert address is not None
                del self.addresses[address]
