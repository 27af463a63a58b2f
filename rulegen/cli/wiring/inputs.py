"""From options to a model and to the state of the node, for all commands."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.cli.command_tables import CommandTables, command_tables
from rulegen.cli.options.fields import COMMAND_LINE, by_option
from rulegen.cli.terminal.console import Progress
from rulegen.compiler.services.compile import Compiled, compile_model
from rulegen.compiler.services.observed import Observed, counts_in
from rulegen.errors import ConfigError, InputError, RulegenError, Warnings
from rulegen.host.commands.runner import run
from rulegen.host.files.manifests import read_sources, read_text
from rulegen.kube.node_names import read_node_name
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.modes import DEFAULT_MODE
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.kube.proxyconfig.validation import SCHEDULERS, cautions
from rulegen.kube.reading.yaml_text import YamlFault, read_yaml
from rulegen.kube.snapshot.build import build_world, read_world
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.model.host.document import facts_from_document
from rulegen.model.ingress.unread import REFUSED
from rulegen.model.services.ir import NftExtra, Semantics
from rulegen.model.services.limits import ServiceLimits
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.ownership.nftables import layout_of
from rulegen.plan.show import Report
from rulegen.text import listed

if TYPE_CHECKING:
    from rulegen.apiserver.budget import Budget
    from rulegen.cli.options.common import CliOptions
    from rulegen.cli.options.ingress import ChosenIngress
    from rulegen.compiler.tables import Tables
    from rulegen.errors import Rejected
    from rulegen.kube.objects.names import Decoded, ObjectKey, ObjectName
    from rulegen.kube.proxyconfig.configuration import KubeProxyConfiguration
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import Model

NOTHING = "none"
MAX_CONFIGURATION: Final = 1 << 20
"""Maximum size of a configuration in bytes: that of a ConfigMap."""
"""Value of --observed for a node without any rules."""


class StrictError(RulegenError):
    """An object has faults, with --strict."""


@dataclass(frozen=True)
class Inputs:
    """The input of a command; each part is read when it is first needed.

    Attributes:
        is_of_this_host: Whether the plan is compared with this host. For a dump of another host, the kernel parameters
            of this host do not matter.
        ingress: The input about Ingresses; None if they are not included.
        every_node: Whether to read all Nodes of an API server; otherwise only the node's own.
        known_world: Objects that were read before; None to read them.
        known_facts: Facts of the host that were read before; None to read them.
    """

    chosen: CliOptions
    is_of_this_host: bool = True
    ingress: ChosenIngress | None = None
    every_node: bool = False
    known_world: ClusterSnapshot | None = None
    known_facts: HostFacts | None = None
    progress: Progress = field(default_factory=Progress)
    command_tables: CommandTables = field(default_factory=command_tables)
    _warnings: Warnings = field(default_factory=Warnings)

    @cached_property
    def tables(self) -> Tables:
        """The known languages and backends, with the layout of nftables mode that is chosen or used on this host."""
        return self._tables_of(self.layout)

    @cached_property
    def layout(self) -> str:
        """The layout of nftables mode that is chosen or used on this host; empty in other modes.

        Raises:
            HostError: The kernel does not say which tables it has.
        """
        return self._layout_beside(None)

    def _tables_of(self, layout: str) -> Tables:
        return self.command_tables.tables.with_layout(layout) if layout else self.command_tables.tables

    def _layout_beside(self, observed: Observed | None) -> str:
        """Return the layout that is chosen, or used in a dump or on this host; empty in other modes."""
        if not self.options.needs.uses_nft:
            return ""
        return self.chosen.fixed_layout or layout_of(self._nft_tables(observed))

    def _nft_tables(self, observed: Observed | None) -> frozenset[str]:
        """Return the names of our tables of nftables in a dump, or on this host if that is compared."""
        if observed is not None:
            states = (state for (language, _), state in observed.states.items() if language == NFTABLES)
            return frozenset(key.table for state in states for key in state)
        if not self.is_of_this_host:
            return frozenset()
        from rulegen.host.nftables.present import tables_there  # noqa: PLC0415 - only this mode needs it

        return tables_there()

    @cached_property
    def configuration(self) -> tuple[Options, tuple[str, ...]]:
        """The options for the compiler, and warnings about the configuration.

        Raises:
            ConfigError: kube-proxy or rulegen rejects the configuration.
        """
        config, unknown = self._configuration
        tables = self.command_tables.tables
        modes = tables.modes
        backend = tables.backends.get(config.mode or DEFAULT_MODE)
        configured = Options.of(config, modes, backend.needs if backend is not None else None)
        options = msgspec.structs.replace(
            configured,
            oldest_claim_wins=self.chosen.claims == "oldest",
            ipvs_semantics=Semantics(self.chosen.ipvs_semantics),
            external_ip_semantics=Semantics(self.chosen.external_ip_semantics),
            external_ips=configured.external_ips and not self.chosen.ignore_external_ips,
            service_networks=self.chosen.service_cidrs,
            nft_extras=frozenset(map(NftExtra, self.chosen.nftables_extras)),
            limits=ServiceLimits(
                endpoints=self.chosen.max_service_endpoints, frontends=self.chosen.max_service_frontends
            ),
        )
        self._check_scheduler(options)
        source = self._source
        return options, tuple(f"{source}: {path} is not a field of a {KIND}; it is ignored" for path in unknown)

    @property
    def cautions(self) -> tuple[str, ...]:
        """Warnings that kube-proxy would print about the configuration; nothing if Services are not managed."""
        return tuple(
            f"{self._source}: {caution}"
            for caution in cautions(self._configuration[0], self.command_tables.tables.modes)
        )

    @property
    def _source(self) -> str:
        return self.chosen.config or COMMAND_LINE

    @cached_property
    def _configuration(self) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
        """The configuration, with flags over the file, and the paths of unknown fields."""
        bare = {"apiVersion": API_VERSION, "kind": KIND}
        # The flags alone are checked first: their faults are not those of the file, which need not be read for that.
        alone = self._read(self.chosen.over(bare), COMMAND_LINE, is_whole=not self.chosen.config)
        return self._configured(self.chosen.config) if self.chosen.config else alone

    def _read(
        self, document: object, source: str, *, is_whole: bool = True
    ) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
        try:
            return read_config(document, source, is_whole=is_whole, modes=self.command_tables.tables.modes)
        except ConfigError as error:
            raise ConfigError(by_option(error.message), hint=error.hint) from None

    def _configured(self, source: str) -> tuple[KubeProxyConfiguration, tuple[str, ...]]:
        """Return the configuration of a file with flags over its fields, and its unknown fields."""
        document, source = _configuration_in(_document(source), source)
        if not isinstance(document, dict):
            return self._read(document, source)
        try:
            return self._read(self.chosen.over(document), source)
        except ConfigError:
            self._read(document, source)  # if the file alone has no fault, a flag contradicts it
            return self._read(self.chosen.over(document), f"{COMMAND_LINE}, over {source}")

    def _check_scheduler(self, options: Options) -> None:
        """Reject an unknown scheduler: always if it is an option, otherwise in ipvs mode.

        Raises:
            ConfigError: The scheduler is unknown; the message lists those of Linux.
        """
        is_option = self.chosen.ipvs_scheduler is not None
        if options.ipvs_scheduler in SCHEDULERS or not (options.needs.has_virtual_servers or is_option):
            return
        if self.is_of_this_host and not self.chosen.host and options.ipvs_scheduler in (self.facts.schedulers or ()):
            return  # a module that is not part of Linux
        raise ConfigError(
            f"{'--ipvs-scheduler' if is_option else f'{self._source}: ipvs.scheduler'}:"
            f" unknown scheduler {options.ipvs_scheduler!r}",
            hint=f"use one of: {', '.join(sorted(SCHEDULERS))}",
        )

    @property
    def options(self) -> Options:
        """The options for the compiler."""
        return self.configuration[0]

    @property
    def node_name(self) -> str:
        """The name of the node: the given one, else the host name.

        Raises:
            ConfigError: No Node can have this name.
        """
        if self.options.node_name:
            return self.options.node_name
        try:
            return read_node_name(self.facts.hostname)
        except ValueError as error:
            raise ConfigError(
                f"the host's name: {error}" if self.facts.hostname else "this node's name is unknown",
                hint="name the Node with --node",
            ) from None

    @cached_property
    def facts(self) -> HostFacts:
        """The facts of the host: from --host, else from this host."""
        if self.known_facts is not None:
            return self.known_facts
        if self.chosen.host:
            return facts_from_document(_document(self.chosen.host), self.chosen.host)
        from rulegen.host.node.facts import gather  # noqa: PLC0415 - loads netlink, which not every call needs

        facts = gather(run)
        if self.is_of_this_host:
            return facts
        return replace(facts, sysctls={}, fixed_sysctls=frozenset(), root_ports=None)

    @cached_property
    def world(self) -> ClusterSnapshot:
        """The objects: from files, else from the API server.

        Raises:
            StrictError: An object has faults, with --strict; all faults are reported.
        """
        if self.known_world is not None:
            return self.known_world
        chosen = self.chosen
        self.options  # noqa: B018 - a fault of the options is reported before anything is read
        self.progress("reading objects …")
        cidrs, ports = chosen.service_cidrs, chosen.node_port_range
        if chosen.files:
            if chosen.kubeconfig or chosen.context:
                self.warn("objects are read from -f, not from an API server: --kubeconfig and --context have no effect")
            sources = read_sources(chosen.files, warn=self.warn)
            world = read_world(sources, service_cidrs=cidrs, node_port_range=ports)
            self._warn_of_ingresses(world)
        else:
            from rulegen.apiserver.lists import read_cluster  # noqa: PLC0415 - loads the client, which is slow

            node = None if self.every_node else self.node_name
            cluster = read_cluster(
                chosen.kubeconfig,
                chosen.context,
                node,
                every_node=self.every_node,
                ingress=self.ingress is not None,
                service_cidrs=self.options.needs.drops_unused_cluster_ips and not chosen.service_cidrs,
                namespaces=self.ingress is not None and self.ingress.watch_namespace_selector is not None,
                warnings=self._warnings,
                budget=self._budget,
            )
            cluster, refused = self._with_referred(cluster)
            world = build_world(cluster, service_cidrs=cidrs, node_port_range=ports)
            world = msgspec.structs.replace(world, unread=dict.fromkeys(sorted(refused), REFUSED))
        if chosen.strict and world.rejected:
            lines = [line for rejected in world.rejected for line in rejected.lines()]
            raise StrictError("\n".join(lines), hint="correct the objects, or omit --strict to skip them")
        return world

    @cached_property
    def _budget(self) -> Budget:
        """Limits for all lists of the API server together."""
        from rulegen.apiserver.budget import Budget  # noqa: PLC0415 - beside the client

        return Budget(self.chosen.api_terms)

    def _warn_of_ingresses(self, world: ClusterSnapshot) -> None:
        """Warn if files contain Ingresses and Ingresses are not included."""
        if self.ingress is None and world.ingresses:
            names = [str(name) for name in world.ingresses]
            count = f"{len(names)} Ingress is" if len(names) == 1 else f"{len(names)} Ingresses are"
            self.warn(f"{count} ignored: {listed(names)}; add --ingress to include Ingresses")

    def _with_referred(self, cluster: list[Decoded | Rejected]) -> tuple[list[Decoded | Rejected], set[ObjectKey]]:
        """Return objects with the Secrets and ConfigMaps that Ingresses name, and the names of denied ones."""
        refused: set[ObjectKey] = set()
        if self.ingress is None:
            return cluster, refused
        from rulegen.apiserver.lists import read_named  # noqa: PLC0415 - loads the client, which is slow
        from rulegen.model.ingress.values.references import references_of  # noqa: PLC0415 - as above

        chosen, world = self.ingress, build_world(cluster)
        ask = partial(
            read_named,
            self.chosen.kubeconfig,
            self.chosen.context,
            warnings=self._warnings,
            refused=refused,
            budget=self._budget,
        )
        asked: set[ObjectName] = set()
        while True:
            wanted = references_of(
                world,
                chosen.selection,
                chosen.annotations_prefix,
                config_map=chosen.configmap,
                default_certificate=chosen.default_ssl_certificate,
            )
            new = wanted.config_maps - asked
            answer = ask(secrets=sorted(wanted.secrets) if not asked else (), config_maps=sorted(new))
            cluster = cluster + answer
            if not new:
                return cluster, refused
            # The settings may name further ones.
            world = msgspec.structs.replace(world, config_maps={**world.config_maps, **build_world(answer).config_maps})
            asked |= new

    def warn(self, text: str) -> None:
        """Add a warning to the report; an empty text adds nothing."""
        if text:
            self._warnings.add(text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings so far."""
        return self._warnings.texts()

    @cached_property
    def model(self) -> Model:
        """All decisions."""
        self.tables.backend(self.options.mode)
        self.node_name  # noqa: B018 - a fault of it comes before those of objects
        world = self.world
        self.progress(f"resolving {len(world.services):,} Services …")
        return resolve(world, self.options, self.facts, self.facts.families)

    def compiled(self, observed: Observed | None, *, is_live: bool) -> Compiled:
        """Return the model compiled for its backend.

        Args:
            observed: The observed state; None for an empty node.
            is_live: Whether it is that of the kernel, not of a dump.
        """
        match self.chosen.nfacct:
            case "on" | "off":
                counts = self.chosen.nfacct == "on"
            case _ if is_live or observed is None:
                counts = bool(can_count() if is_live and self.facts.nfacct is None else self.facts.nfacct)
            case _:
                counts = counts_in(observed)
        tables = self.tables if is_live or observed is None else self._tables_of(self._layout_beside(observed))
        return self._compiled(tables, counts=counts)

    def _compiled(self, tables: Tables, *, counts: bool) -> Compiled:
        model = self.model
        self.progress(f"compiling {len(model.services):,} Services …")
        return compile_model(model, self.options.mode, counts=counts, tables=tables)

    def exported(self) -> Compiled:
        """Return the model compiled for export: rules have counters only if requested.

        The kernel rejects a rule whose counter does not exist, and few hosts have the tool that creates counters.
        """
        return self._compiled(self.tables, counts=self.chosen.nfacct == "on")

    def report(self, observed: str, *warnings: str) -> Report:
        """Return the report for a plan that was compared with `observed`."""
        world, model = self.world, self.model
        return Report(
            node=model.node_name,
            mode=self.options.mode,
            observed=observed,
            rejected=world.rejected,
            unknown_kinds=world.unknown_kinds,
            warnings=(
                *self.configuration[1],
                *self.cautions,
                *self._warnings.texts(),
                *world.warnings,
                *model.warnings,
                *warnings,
            ),
            services={str(name): service for name, service in model.services.items()},
        )


def _document(path: str) -> Any:
    """Return the only document in a YAML or JSON file: a configuration, or facts of a host.

    Raises:
        InputError: There is no document, it is malformed or larger than `MAX_CONFIGURATION`, or there is a second one,
            which would be ignored.
    """
    return _only_document(read_text(path, max_bytes=MAX_CONFIGURATION), path)


def _only_document(text: str, path: str) -> Any:
    """Return the only document in a text.

    Raises:
        InputError: As for `_document`.
    """
    values = []
    for document in read_yaml(text.encode()):
        if isinstance(document, YamlFault):
            raise InputError(path, f"line {document.line}: {document.message}")
        if document.value is not None:
            values.append(document.value)
        if len(values) > 1:
            raise InputError(
                path,
                f"line {document.line}: a second document, but only one is expected",
                hint="give a file with that document only",
            )
    if not values:
        raise InputError(path, "it is empty")
    return values[0]


def _configuration_in(document: Any, source: str) -> tuple[Any, str]:
    """Return the configuration in a document, and its source: the ConfigMap of kube-proxy has it as a text.

    Raises:
        InputError: The text is not one YAML document.
    """
    match document:
        case {"apiVersion": "v1", "kind": "ConfigMap", "data": {"config.conf": str() as text}}:
            source = f"{source}: data[config.conf]"
            return _only_document(text, source), source
        case _:
            return document, source


def can_count() -> bool:
    """Whether this host's kernel supports nfacct, whatever a file says."""
    from rulegen.host.netfilter import nfacct  # noqa: PLC0415 - only a live plan needs it

    return bool(nfacct.supported())
