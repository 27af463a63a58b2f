"""What the options of HAProxy create: its compiler, its engine on this host, and its removal."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.cli.engines.haproxy.defaults import HAPROXY_DIR, NAMES_PORT
from rulegen.errors import HostError
from rulegen.host.commands.runner import run
from rulegen.host.files.self_signed import make
from rulegen.host.haproxy.engine import HaproxyCompiler, HaproxyEngine
from rulegen.host.haproxy.facts import check_version
from rulegen.host.haproxy.service import HaproxyService
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.engine import ProxyRemoval
from rulegen.host.proxy.resolver import control
from rulegen.model.ingress.ir import SecretFile
from rulegen.plan.haproxy import HAPROXY as PLANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.options import IngressOptions

USER: Final = "haproxy haproxy"
"""User and group of HAProxy's package of Debian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenHaproxy:
    """HAProxy with its command-line options; see `ChosenEngine`."""

    haproxy_dir: str = HAPROXY_DIR
    haproxy_binary: str = "haproxy"
    haproxy_names_port: int = NAMES_PORT

    @property
    def files(self) -> tuple[str, ...]:
        """None: HAProxy has no templates."""
        return ()

    @property
    def folder(self) -> Path:
        """The folder that HAProxy runs from on this node."""
        return Path(self.haproxy_dir)

    def compiler(self, options: IngressOptions, notes: list[str]) -> HaproxyCompiler:
        """Return a compiler for the HAProxy of Debian 12."""
        made_up = SecretFile(content=make())
        return HaproxyCompiler(
            msgspec.structs.replace(_completed(options, USER, names_port=NAMES_PORT), made_up_certificate=made_up),
            notes,
        )

    def engine(
        self,
        options: IngressOptions,
        notes: list[str],
        *,
        look: Callable[[IngressOptions], IngressOptions],
        tries_aside: bool,
    ) -> HaproxyEngine:
        """Return the engine for the HAProxy of this host."""
        user = _user()
        usable = cache(lambda: check_version(run, self.haproxy_binary))
        known = default_certificate.load(self.folder)
        options = msgspec.structs.replace(options, made_up_certificate=SecretFile(content=known or make()))
        port = self.haproxy_names_port
        if (stranger := control.stranger(port)) is not None:
            notes.append(control.taken_by(port, stranger))

        def completed(options: IngressOptions) -> IngressOptions:
            usable()
            options = _completed(options, user, names_port=port)
            return options if control.stranger(port) is None else msgspec.structs.replace(options, resolvers=())

        service = HaproxyService(self.folder, run, binary=self.haproxy_binary, keeps_spare=not tries_aside)
        return HaproxyEngine(
            service,
            options,
            notes,
            tries_aside=tries_aside,
            look=lambda options: completed(look(options)),
        )

    def removal(self) -> ProxyRemoval:
        """Return the removal of the HAProxy of this host."""
        return ProxyRemoval(HaproxyService(self.folder, run, binary=self.haproxy_binary), PLANS)


def _completed(options: IngressOptions, user: str, *, names_port: int) -> IngressOptions:
    """Return options with those that only HAProxy needs."""
    return msgspec.structs.replace(
        options, host=msgspec.structs.replace(options.host, user=user, names_port=names_port)
    )


def _user() -> str:
    """Return user and group of the workers; empty without the right to change them.

    Raises:
        HostError: They do not exist.
    """
    if os.geteuid() != 0:
        return ""
    name, _, group = USER.partition(" ")
    try:
        pwd.getpwnam(name)
        grp.getgrnam(group)
    except KeyError:
        raise HostError(f"there is no user {name} for HAProxy to run as", hint="apt install haproxy") from None
    return USER
