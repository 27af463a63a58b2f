"""Options that narrow what is shown of a plan; the plan itself stays whole."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rulegen.cli.habits import UNQUOTED
from rulegen.cli.options.ingress import SelectorType
from rulegen.errors import ConfigError
from rulegen.plan.filters import PlanFilter
from rulegen.plan.show import Details

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.kube.selector import Selector
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.plan.plan import Plan

_SERVICE: Final = re.compile("[a-z0-9-]+(?:/[a-z0-9-]+)?")
"""What can be the name of a Service; a path such as `service.yaml` cannot."""
_QUIET: Final = "Show only the totals, warnings and skipped objects."

F = TypeVar("F", bound="Callable[..., Any]")

VERBOSE = click.option("-v", "--verbose", is_flag=True, help="List every changed object, in a plan of any size.")

_OPTIONS = (
    click.argument("services", nargs=-1, metavar="[SERVICE]..."),
    click.option("-n", "--namespace", metavar="NAME", help="Show only Services in this namespace."),
    click.option("-A", "--all-namespaces", is_flag=True, help="Show all namespaces. This is the default."),
    click.option("-l", "--selector", type=SelectorType(), help="Show only Services with these labels."),
    click.option(
        "--ingress-host", "hosts", multiple=True, metavar="HOST", help="Show only this host of Ingresses. Repeatable."
    ),
    VERBOSE,
    click.option("-q", "--quiet", is_flag=True, help=_QUIET),
    click.option("--no-pager", is_flag=True, help="Do not use a pager for a plan longer than the terminal."),
)


def narrowing_options(function: F) -> F:
    """Add the options to a command; it receives them as fields of `Narrowing`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """Values of the options; see the help texts for their meaning."""

    services: tuple[str, ...] = ()
    namespace: str | None = None
    all_namespaces: bool = False
    selector: Selector | None = None
    hosts: tuple[str, ...] = ()
    verbose: bool = False
    quiet: bool = False
    no_pager: bool = False

    @classmethod
    def of(cls, chosen: dict[str, Any]) -> Narrowing:
        """Return the options; they are removed from `chosen`.

        Raises:
            ConfigError: Two of them exclude each other, or a path is given where a Service is expected.
        """
        narrowing = cls(**{name: chosen.pop(name) for name in cls.__slots__})
        if narrowing.namespace is not None and narrowing.all_namespaces:
            raise ConfigError("-n and -A exclude each other", hint="omit one of them")
        for given in narrowing.services:
            if not _SERVICE.fullmatch(given) and os.path.lexists(given):
                raise ConfigError(f"{given} is a path, not the name of a Service", hint=UNQUOTED)
        if narrowing.quiet and narrowing.verbose:
            raise ConfigError("-q and -v exclude each other", hint="omit one of them")
        return narrowing

    @property
    def details(self) -> Details:
        """Whether changed objects are listed: all of them with -v, and for a part of the plan; none with -q."""
        narrows = self.services or self.namespace is not None or self.selector is not None or self.hosts
        if self.quiet:
            return Details.TOTALS
        return Details.ALL if self.verbose or narrows else Details.SMALL

    def filter(self, world: ClusterSnapshot, plan: Plan) -> PlanFilter:
        """Return the filter of what is shown.

        Args:
            world: The objects, which have the labels.
            plan: The whole plan, which may remove Services that no longer exist.

        Raises:
            ConfigError: A named Service is neither in the objects nor in the plan.
        """
        known = {str(name) for name in world.services} | {item.owner for item in plan.items if item.owner}
        for given in self.services:
            if not any(self._names(given, name) for name in known):
                where = "" if "/" in given else f" in {self.namespace}" if self.namespace else " in any namespace"
                raise ConfigError(
                    f"there is no Service {given}{where}",
                    hint=UNQUOTED if os.path.lexists(given) else "give NAMESPACE/NAME, or NAME with -n NAMESPACE",
                )
        words = [*self.services]
        words += [f"-n {self.namespace}"] if self.namespace is not None else []
        words += [f"-l {self.selector.text}"] if self.selector is not None else []
        by_service = bool(words)
        words += [f"--ingress-host {host}" for host in self.hosts]
        selected = {
            str(name)
            for name, known in world.services.items()
            if self.selector is not None and self.selector.selects(known.service.metadata.labels)
        }

        def shows(owner: str) -> bool:
            namespace = owner.partition("/")[0]
            return (
                (not self.services or any(self._names(given, owner) for given in self.services))
                and (self.namespace is None or namespace == self.namespace)
                and (self.selector is None or owner in selected)
            )

        return PlanFilter(text=" ".join(words), services=shows if by_service else None, hosts=frozenset(self.hosts))

    def _names(self, given: str, owner: str) -> bool:
        """Whether a word of the command line names a Service."""
        namespace, _, name = owner.partition("/")
        return given == owner or (given == name and self.namespace in (None, namespace))
