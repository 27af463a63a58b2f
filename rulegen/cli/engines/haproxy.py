"""HAProxy as a row of the table of ingress engines: its options, and what they create."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from rulegen.cli.engines.row import EngineRow
from rulegen.errors import ConfigError
from rulegen.host.doctor.findings import Level
from rulegen.host.doctor.tool import Tool
from rulegen.host.files.self_signed import make
from rulegen.host.haproxy.export import HaproxyCompiler
from rulegen.model.ingress.ir import SecretFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.compiler.ingress.engine import AnyEngine, EngineRemoval
    from rulegen.model.ingress.options import IngressOptions

USER: Final = "haproxy haproxy"
"""User and group of HAProxy's package of Debian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenHaproxy:
    """HAProxy with its command-line options; see `ChosenEngine`."""

    @property
    def files(self) -> tuple[str, ...]:
        """None: HAProxy has no templates."""
        return ()

    def compiler(self, options: IngressOptions, notes: list[str]) -> HaproxyCompiler:
        """Return a compiler for the HAProxy of Debian 12."""
        host = replace(options.host, user=USER, names_port=0)
        made_up = SecretFile(content=make())
        return HaproxyCompiler(replace(options, host=host, made_up_certificate=made_up), notes)

    def engine(
        self,
        options: IngressOptions,
        notes: list[str],
        *,
        look: Callable[[IngressOptions], IngressOptions],
        tries_aside: bool,
    ) -> AnyEngine:
        """Refuse: HAProxy is not run yet.

        Raises:
            ConfigError: Always.
        """
        del options, notes, look, tries_aside
        _refuse()

    def removal(self) -> EngineRemoval:
        """Refuse: HAProxy is not run yet.

        Raises:
            ConfigError: Always.
        """
        _refuse()


def _refuse() -> NoReturn:
    raise ConfigError(
        "--ingress-engine haproxy: HAProxy is experimental, and rulegen does not run it yet",
        hint="export writes its configuration: rulegen export --haproxy DIR",
    )


HAPROXY: Final = EngineRow(
    name="haproxy",
    choice=ChosenHaproxy,
    export_help="Experimental: folder for HAProxy's configuration for Ingresses. Created if missing.",
    tools=(Tool("haproxy", "-v", "ingress", Level.INFO),),
    runs=False,
)
