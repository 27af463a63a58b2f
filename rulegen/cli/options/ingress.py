"""Options about Ingresses that several commands have, and their values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rulegen.cli.engines.table import DEFAULT, ENGINES
from rulegen.errors import ConfigError
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.selector import Selector, parse_selector
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.model.ingress.values.classes import CLASS_NAME, CONTROLLER, DEFAULT_PREFIX, MOST_HOSTS, Selection
from rulegen.net import Network, parse_address, parse_network
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.cli.engines.row import ChosenEngine
    from rulegen.model.ingress.reasons import Reason

F = TypeVar("F", bound="Callable[..., Any]")


class ObjectNameType(click.ParamType[ObjectName]):
    """The name of an object in a namespace."""

    name = "NAMESPACE/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ObjectName:
        """Return the name in a text."""
        if isinstance(value, ObjectName):
            return value
        namespace, slash, name = value.partition("/")
        if not (slash and is_label(namespace) and is_subdomain(name)):
            self.fail(f"{value!r} is not the name of an object such as shop/web", param, ctx)
        return ObjectName(namespace, name)


class _NameType(click.ParamType[str]):
    """A text that `holds` accepts; another text could never match an object."""

    def __init__(self, name: str, holds: Callable[[str], bool], what: str) -> None:
        self.name, self.holds, self.what = name, holds, what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not self.holds(text):
            self.fail(f"{quoted(text)} is not {self.what}", param, ctx)
        return text


class _EndpointNetworkType(click.ParamType[Network]):
    """A prefix; an address alone is a prefix of full length."""

    name = "CIDR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        if isinstance(value, IPv4Network | IPv6Network):
            return value
        try:
            return (
                parse_network(value) if "/" in value else parse_network(f"{value}/{parse_address(value).max_prefixlen}")
            )
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SelectorType(click.ParamType[Selector]):
    """A label selector."""

    name = "SELECTOR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Selector:
        """Return the selector in a text."""
        if isinstance(value, Selector):
            return value
        try:
            return parse_selector(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenIngress:
    """Values of the options about Ingresses; see the help texts for their meaning.

    Attributes:
        engine_options: The values of each engine's own options, by the engine's name.
        flag_reports: What to report about flags of ingress-nginx that have no effect here.
        flags_given: All flags and options about Ingresses on the command line.
    """

    ingress: bool = False
    ingress_engine: str = DEFAULT
    engine_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    http_port: int = 80
    https_port: int = 443
    controller_class: str = CONTROLLER
    ingress_class: str = CLASS_NAME
    ingress_class_by_name: bool = False
    watch_ingress_without_class: bool = False
    watch_namespace: tuple[str, ...] = ()
    watch_namespace_selector: Selector | None = None
    annotations_prefix: str = DEFAULT_PREFIX
    configmap: ObjectName | None = None
    default_ssl_certificate: ObjectName | None = None
    default_backend_service: ObjectName | None = None
    disable_svc_external_name: bool = False
    disable_catch_all: bool = False
    ingress_allow_endpoint: tuple[Network, ...] = ()
    max_namespace_hosts: int = MOST_HOSTS
    flag_reports: tuple[Reason, ...] = ()
    flags_given: tuple[str, ...] = ()

    @classmethod
    def of(cls, chosen: dict[str, Any]) -> ChosenIngress:
        """Return the options about Ingresses; they are removed from `given`.

        Raises:
            ConfigError: Two of them exclude each other.
        """
        engines = {
            row.name: {name: chosen.pop(name) for name in row.parameters if name in chosen} for row in ENGINES.values()
        }
        own = {field.name: chosen.pop(field.name) for field in fields(cls) if field.name in chosen}
        asked = cls(**own, engine_options=engines)
        if asked.http_port == asked.https_port:
            raise ConfigError(
                f"--http-port and --https-port are both {asked.http_port}", hint="give two ports, such as 80 and 443"
            )
        return asked

    def refuse_nothing(self, *, no_services: bool, verb: str) -> None:
        """Reject a command with neither Services nor Ingresses.

        Raises:
            ConfigError: It is one.
        """
        if no_services and not self.ingress:
            raise ConfigError(
                f"--no-services without --ingress: then there is nothing to {verb}",
                hint="add --ingress, or omit --no-services",
            )

    @property
    def idle(self) -> str:
        """A warning about options that have no effect without --ingress; empty if there are none."""
        if self.ingress or not self.flags_given:
            return ""
        have = "has" if len(self.flags_given) == 1 else "have"
        return f"{', '.join(self.flags_given)} {have} no effect without --ingress"

    @property
    def engine(self) -> ChosenEngine:
        """The engine that serves Ingresses, with its options.

        Raises:
            ConfigError: One of them is invalid.
        """
        return ENGINES[self.ingress_engine].choice(**self.engine_options.get(self.ingress_engine, {}))

    @property
    def selection(self) -> Selection:
        """Which Ingresses are served."""
        return Selection(
            controller=self.controller_class,
            class_name=self.ingress_class,
            without_class=self.watch_ingress_without_class,
            by_name=self.ingress_class_by_name,
            namespaces=frozenset(self.watch_namespace),
            namespace_selector=self.watch_namespace_selector,
            catch_all=not self.disable_catch_all,
        )


def parameter_names() -> frozenset[str]:
    """Return the names of all parameters that have no effect without --ingress."""
    own = {field.name for field in fields(ChosenIngress)} - {"ingress", "engine_options"}
    return frozenset(own.union(*(row.parameters for row in ENGINES.values())))


_PORT = click.IntRange(1, 65535)
_NAMESPACE = _NameType("NAME", is_label, "the name of a namespace, such as shop")
_CLASS = _NameType("NAME", lambda text: text != "" and text == text.strip(), "a class of Ingresses, such as nginx")
_CONTROLLER = _NameType(
    "NAME", lambda text: all(text.partition("/")) and not re.search(r"\s", text), f"a controller, such as {CONTROLLER}"
)
_PREFIX = _NameType("PREFIX", is_subdomain, f"a prefix of annotations, such as {DEFAULT_PREFIX} (without a slash)")

SWITCH = click.option("--ingress", is_flag=True, help="Include Ingresses. A proxy in the host's network serves them.")

ENGINE = click.option(
    "--ingress-engine",
    type=click.Choice(list(ENGINES)),
    default=DEFAULT,
    show_default=True,
    help="Proxy that serves Ingresses.",
)

_OPTIONS = (
    click.option("--http-port", type=_PORT, default=80, show_default=True, help="Port for HTTP."),
    click.option("--https-port", type=_PORT, default=443, show_default=True, help="Port for HTTPS."),
    click.option(
        "--controller-class",
        type=_CONTROLLER,
        default=CONTROLLER,
        show_default=True,
        help="Serve IngressClasses with this spec.controller. To take over from ingress-nginx: k8s.io/ingress-nginx.",
    ),
    click.option(
        "--ingress-class",
        type=_CLASS,
        default=CLASS_NAME,
        show_default=True,
        help="Also serve Ingresses whose annotation kubernetes.io/ingress.class has this value.",
    ),
    click.option(
        "--ingress-class-by-name",
        is_flag=True,
        help="Serve the IngressClass named by --ingress-class, with any spec.controller.",
    ),
    click.option("--watch-ingress-without-class", is_flag=True, help="Also serve Ingresses that name no class."),
    click.option(
        "--watch-namespace", type=_NAMESPACE, multiple=True, help="Serve only Ingresses in this namespace. Repeatable."
    ),
    click.option(
        "--watch-namespace-selector",
        type=SelectorType(),
        help="Serve only Ingresses in namespaces with these labels, such as team=shop,!legacy.",
    ),
    click.option(
        "--annotations-prefix",
        type=_PREFIX,
        default=DEFAULT_PREFIX,
        show_default=True,
        help="Prefix of annotations of Ingresses.",
    ),
    click.option(
        "--configmap",
        type=ObjectNameType(),
        help="ConfigMap with settings for all hosts. Its keys are those of ingress-nginx.",
    ),
    click.option(
        "--default-ssl-certificate",
        type=ObjectNameType(),
        help="Secret with the certificate for hosts without one.  [default: a self-signed certificate]",
    ),
    click.option(
        "--default-backend-service",
        type=ObjectNameType(),
        help="Service for requests that match no Ingress.  [default: answer 404]",
    ),
    click.option(
        "--disable-svc-external-name", is_flag=True, help="Do not forward requests to Services of type ExternalName."
    ),
    click.option("--disable-catch-all", is_flag=True, help="Do not serve Ingresses that have spec.defaultBackend."),
    click.option(
        "--ingress-allow-endpoint",
        type=_EndpointNetworkType(),
        multiple=True,
        help="Forward requests to these addresses, even if they belong to the node, a gateway, an API server or a"
        " metadata server. Repeatable.",
    ),
    click.option(
        "--max-namespace-hosts",
        type=click.IntRange(min=1),
        default=MOST_HOSTS,
        show_default=True,
        metavar="N",
        help="Maximum number of hosts in one namespace. Other limits of the namespace follow from it: 4*N paths, 2*N"
        " KiB of annotations, 16*N KiB of certificates and keys. Beyond a limit, only the oldest Ingresses are served.",
    ),
)


def ingress_options(*, switch: bool = True) -> Callable[[F], F]:
    """Return a decorator that adds the options about Ingresses; the command receives them as `ChosenIngress` fields.

    Args:
        switch: Whether there is --ingress, and options about where an engine runs.
    """
    rows = ENGINES.values()
    form = [option for row in rows for option in row.form]
    live = [option for row in rows for option in (*row.place, *row.live)]
    options = (SWITCH, ENGINE, *live, *form, *_OPTIONS) if switch else (*form, *_OPTIONS)
    return _added(options)


def removal_options(switch: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return a decorator that adds the options of a command that removes an engine, including --ingress."""
    return _added((switch, ENGINE, *(option for row in ENGINES.values() for option in row.place)))


def export_options() -> Callable[[F], F]:
    """Return a decorator that adds, for each engine, the option for the folder of its configuration: `export_NAME`."""
    return _added(
        tuple(
            click.option(f"--{row.name}", f"export_{row.name}", metavar="DIR", help=row.export_help)
            for row in ENGINES.values()
        )
    )


def _added(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add
