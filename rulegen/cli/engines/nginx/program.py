"""What the options of nginx create: its compiler, its engine on this host, and its removal."""

from __future__ import annotations

import grp
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.backends.nginx.names import HTTP2_IS_DIRECTIVE, module_trait
from rulegen.cli.engines.nginx.defaults import NAMES_PORT, NGINX_DIR
from rulegen.errors import HostError
from rulegen.host.commands.runner import run
from rulegen.host.nginx.engine import NginxCompiler, NginxEngine
from rulegen.host.nginx.facts import CheckedFacts, gather_nginx, worker
from rulegen.host.nginx.service import NginxService
from rulegen.host.nginx.templates import read_templates
from rulegen.host.proxy.disk import default_certificate
from rulegen.host.proxy.engine import ProxyRemoval
from rulegen.host.proxy.resolver import control
from rulegen.languages.nginx.facts import HEADERS_MORE, NginxFacts
from rulegen.model.ingress.ir import SecretFile
from rulegen.plan.nginx import NGINX as NGINX_PLANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.options import IngressOptions

HTTP2_DIRECTIVE: Final = (1, 25, 1)
"""First version of nginx with a directive for HTTP/2."""
SHARED_USER: Final = "nobody"
"""User of programs without a user of their own."""
PLACEHOLDER_NGINX: Final = NginxFacts(version=(1, 22, 1), user="www-data", group="www-data")
"""Assumed facts of an nginx that is not on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenNginx:
    """nginx with its command-line options; see `ChosenEngine` and the help texts of the options."""

    nginx_dir: str = NGINX_DIR
    nginx_binary: str = "nginx"
    names_port: int = NAMES_PORT
    nginx_templates: str | None = None
    nginx_user: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The folder of templates, if the user has given one."""
        return (self.nginx_templates,) if self.nginx_templates else ()

    @property
    def folder(self) -> Path:
        """The folder that nginx runs from on this node."""
        return Path(self.nginx_dir)

    def compiler(self, options: IngressOptions, notes: list[str]) -> NginxCompiler:
        """Return a compiler for the nginx of Debian 12."""
        options = self._completed(options, PLACEHOLDER_NGINX, names_port=0)
        made_up = SecretFile(content=default_certificate.make())
        templates = read_templates(self.nginx_templates)
        return NginxCompiler(templates, msgspec.structs.replace(options, made_up_certificate=made_up), notes)

    def engine(
        self,
        options: IngressOptions,
        notes: list[str],
        *,
        look: Callable[[IngressOptions], IngressOptions],
        tries_aside: bool,
    ) -> NginxEngine:
        """Return the engine for the nginx of this host."""
        templates = read_templates(self.nginx_templates)
        checked = CheckedFacts(run, self.nginx_binary, lambda: self.facts(notes), HEADERS_MORE)
        known = default_certificate.load(self.folder)
        options = msgspec.structs.replace(
            options, made_up_certificate=SecretFile(content=known or default_certificate.make())
        )
        if (stranger := control.stranger(self.names_port)) is not None:
            notes.append(control.taken_by(self.names_port, stranger))

        def completed(options: IngressOptions) -> IngressOptions:
            before, facts = checked.trouble, checked.facts()
            if checked.trouble and checked.trouble != before:
                notes.append(f"{checked.trouble}; until nginx answers, {HEADERS_MORE} counts as loadable")
            return self._asking_us(self._completed(options, facts, names_port=self.names_port))

        group = _group(worker(self.nginx_user)[1])
        service = NginxService(
            self.folder, run, binary=self.nginx_binary, worker_group=group, keeps_spare=not tries_aside
        )
        return NginxEngine(
            service,
            options,
            notes,
            templates=templates,
            tries_aside=tries_aside,
            look=lambda options: completed(look(options)),
        )

    def removal(self) -> ProxyRemoval:
        """Return the removal of the nginx of this host."""
        return ProxyRemoval(NginxService(self.folder, run, binary=self.nginx_binary), NGINX_PLANS)

    def facts(self, notes: list[str]) -> NginxFacts:
        """Return the facts of this host's nginx; add a note if other programs run as the user of its workers.

        Raises:
            HostError: It is not installed, or the user of its workers does not exist.
        """
        facts = gather_nginx(run, self.nginx_binary, user=self.nginx_user)
        if facts.user == SHARED_USER:
            notes.append(
                f"nginx's workers run as {SHARED_USER}. Other programs of that user can read TLS keys in their"
                " memory: create a user for nginx and give it with --nginx-user"
            )
        return facts

    def _completed(self, options: IngressOptions, facts: NginxFacts, *, names_port: int) -> IngressOptions:
        """Return options with those that only nginx needs."""
        user = self.nginx_user or facts.user
        host = msgspec.structs.replace(
            options.host,
            names_port=names_port,
            user=f"{user} {facts.group}" if user and facts.group else user,
            sets_server=_has_headers_more(facts),
            traits=_traits(facts),
        )
        return msgspec.structs.replace(options, host=host)

    def _asking_us(self, options: IngressOptions) -> IngressOptions:
        """Return options without name servers if another user's program has the port of rulegen's resolver."""
        return options if control.stranger(self.names_port) is None else msgspec.structs.replace(options, resolvers=())


def _traits(facts: NginxFacts) -> frozenset[str]:
    """Return what the backend must know of an nginx."""
    traits = {HTTP2_IS_DIRECTIVE} if facts.version >= HTTP2_DIRECTIVE else set()
    if _has_headers_more(facts):
        traits.add(module_trait(HEADERS_MORE, "" if HEADERS_MORE in facts.built_in else facts.modules[HEADERS_MORE]))
    return frozenset(traits)


def _has_headers_more(facts: NginxFacts) -> bool:
    return HEADERS_MORE in facts.built_in or HEADERS_MORE in facts.modules


def _group(name: str) -> int | None:
    """Return the id of the workers' group.

    Raises:
        HostError: The group does not exist.
    """
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        raise HostError(f"the group {name} for nginx's workers does not exist") from None
