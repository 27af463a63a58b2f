"""Saved plans: `plan --out FILE` writes one, `apply FILE` applies exactly that, or says what has changed since.

A saved plan has no rules to execute. It has the arguments of `plan`, digests of the decisions and of the changes, and
the plan as it was shown. `apply` reads all inputs again and makes the plan again. Compilation is deterministic, so
equal digests mean equal writes. Stale UDP flows are not part of the digests: they are looked up again. Neither is a
self-signed certificate that no plan has stored yet.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from rulegen import KUBE_PROXY, __version__
from rulegen.cli.options.old_flags import ARGUMENTS
from rulegen.cli.wiring.digests import digest
from rulegen.errors import HostError, InputError, RulegenError
from rulegen.host.files.manifests import are_from_stdin
from rulegen.languages.configuration import digest_of
from rulegen.plan import show
from rulegen.safe_files import MIB, folder_at, open_regular, read_begin, read_descriptor, write_at
from rulegen.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.cli.wiring.ingress import IngressInputs
    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.languages.configuration import Configuration
    from rulegen.plan.plan import Plan
    from rulegen.plan.show import Report

KIND: Final = "SavedPlan"
_BEGIN: Final = b'{"schemaVersion":1,"kind":"SavedPlan",'
_PREFIX: Final = "RULEGEN_"
_MOST: Final = 256 * MIB
_FLOWS: Final = "conntrack"
_SINCE: Final = "the plan was saved"


class PlanChangedError(RulegenError):
    """The input of a saved plan has changed since."""


class SavedPlan(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The content of the file.

    Attributes:
        version: Version of rulegen, and of kube-proxy whose rules it writes.
        created: When it was made (RFC 3339).
        node: Name of the node.
        directory: The folder to which relative paths among the arguments refer.
        arguments: Those of `plan`.
        environment: Options from environment variables.
        configuration: Digest of the options and of kube-proxy's configuration.
        facts: Digests of the facts of the host, by name.
        services: Digests of the decisions about each Service.
        decisions: Digest of the decisions about the node.
        ingress: Digest of the configuration for Ingresses; empty without one.
        changes: Digests of the changes, by language, without stale flows.
        plan: The plan, as `plan -o json` prints it.
    """

    schema_version: int = 1
    kind: str = KIND
    version: str
    created: str
    node: str
    directory: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    configuration: str
    facts: dict[str, str]
    services: dict[str, str]
    decisions: str
    ingress: str
    changes: dict[str, str]
    plan: dict[str, Any]

    def parameters(self, context: click.Context) -> dict[str, Any]:
        """Return the parameters of the `plan` that was saved.

        Raises:
            InputError: The folder of relative paths is gone.
        """
        group = context.parent.command if context.parent is not None else None
        plan = group.get_command(context, "plan") if isinstance(group, click.Group) else None
        if plan is None:
            raise TypeError("apply has no plan beside it")
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise InputError(self.directory, f"the folder of the saved plan: {error.strerror}") from None
        with _variables(self.environment):
            return plan.make_context("plan", list(self.arguments), parent=context.parent).params

    def refuse_changed(self, now: SavedPlan) -> None:
        """Reject the plan if it is not the one that would be written now.

        Raises:
            PlanChangedError: The message says what has changed.
        """
        if reasons := list(self._reasons(now)):
            raise PlanChangedError(
                f"the saved plan does not apply any more; since {_SINCE}:\n" + "\n".join(reasons),
                hint="make a new plan with `rulegen plan --out FILE`, and read it",
            )

    def _reasons(self, now: SavedPlan) -> Iterator[str]:
        if self.version != now.version:
            yield f"the version of rulegen has changed: {self.version} made the plan, this is {now.version}"
        if self.node != now.node:
            yield f"the node has changed: the plan is for {self.node}, this is {now.node}"
        is_same = all(getattr(self, name) == getattr(now, name) for name in ("services", "decisions", "ingress"))
        if is_same and self.changes == now.changes:
            return
        if self.services != now.services:
            yield f"Services have changed: {listed(_differing(self.services, now.services))}"
        if self.configuration != now.configuration:
            yield "the configuration has changed"
        if changed := _differing(self.facts, now.facts):
            yield f"facts of the host have changed: {listed(changed)}"
        if self.decisions != now.decisions and self.configuration == now.configuration and not changed:
            yield "objects about the node have changed, such as its Node or the ServiceCIDRs"
        if self.ingress != now.ingress:
            yield "the configuration for Ingresses has changed"
        if is_same:
            yield f"the state of this node has changed: {listed(_differing(self.changes, now.changes))}"


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


class PlanOrigin(msgspec.Struct, frozen=True):
    """The command that made a plan: what `apply` needs to make it again."""

    directory: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def here(cls, context: click.Context) -> PlanOrigin:
        """Return that of the current command."""
        variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIX)}
        return cls(str(Path.cwd()), tuple(context.meta[ARGUMENTS]), variables)


def saved_plan(
    inputs: Inputs, plan: Plan, report: Report, ingress: IngressInputs | None, origin: PlanOrigin, *, services: bool
) -> SavedPlan:
    """Return a plan as it is saved.

    Args:
        inputs: What it was made from.
        plan: The whole plan.
        report: The report for it.
        ingress: The input about Ingresses; None if they are not included.
        origin: How it was asked for.
        services: Whether the rules of Services are part of it.
    """
    model, facts = inputs.model if services else None, inputs.facts
    return SavedPlan(
        version=f"{__version__} (rules of kube-proxy {KUBE_PROXY})",
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        node=report.node,
        directory=origin.directory,
        arguments=origin.arguments,
        environment=dict(origin.environment),
        configuration=digest(inputs.options),
        facts={field.name: digest(getattr(facts, field.name)) for field in fields(facts) if field.name != "former"},
        services={str(name): digest(service) for name, service in model.services.items()} if model is not None else {},
        decisions=digest((model.nodes, model.sysctls, model.timeouts)) if model is not None else "",
        ingress=_site_digest(ingress.site.configuration) if ingress is not None else "",
        changes=_changes(plan),
        plan=show.json_document(plan, report),
    )


def _site_digest(configuration: Configuration) -> str:
    """Return the digest of a configuration, without its self-signed certificate: each plan makes one until `apply`."""
    from rulegen.model.ingress.routing.certificates import (  # noqa: PLC0415 - only Ingresses need it
        DEFAULT_CERTIFICATE,
    )

    secrets = {path: each for path, each in configuration.secrets.items() if path != DEFAULT_CERTIFICATE}
    named = configuration.digest
    files = {path: text.replace(named, "") if named else text for path, text in configuration.files.items()}
    return digest_of(files, secrets)


def _changes(plan: Plan) -> dict[str, str]:
    """Return digests of the changes by language. Comments of rules and stale flows are not included."""
    by_language: dict[str, list[Any]] = {}
    if plan.site is not None:
        by_language[plan.site.engine] = [(plan.site.reload, plan.site.runs, plan.site.ends)]
    for item in plan.items:
        if item.language != _FLOWS:
            lines = tuple((line.sign, line.text) for line in item.lines)
            place = (item.action, item.family, item.variant, item.kind, item.name, item.owner)
            by_language.setdefault(item.language, []).append((place, lines))
    return {language: digest(sorted(map(repr, items))) for language, items in by_language.items()}


def refuse_unsaveable(path: str, files: tuple[str | None, ...], observed: tuple[str, ...]) -> None:
    """Reject a plan that cannot be made again, or not for this host.

    Raises:
        InputError: It is compared with dumps, or reads standard input, or its place is no file.
    """
    if path == "-":
        raise InputError(
            "--out", "a saved plan is a file, not standard output", hint="name a file; -o json prints the plan"
        )
    if observed:
        raise InputError(
            "--out", "a plan compared with --observed cannot be applied", hint="omit --observed, on the node itself"
        )
    if are_from_stdin(files):
        raise InputError(
            "--out", "standard input cannot be read again by apply", hint="write it to a file, and give that"
        )


def write_saved(path: str, plan: SavedPlan) -> None:
    """Write a saved plan with mode 0600. Another saved plan is replaced, but no other file.

    Raises:
        HostError: It cannot be written, or the file is something else.
    """
    place = Path(path)
    try:
        with folder_at(place.parent, follow=True) as folder:
            try:
                begin = read_begin(place.name, len(_BEGIN), dir_fd=folder)
            except FileNotFoundError:
                begin = _BEGIN
            if begin != _BEGIN:
                raise HostError(f"{path} exists and is not a saved plan: nothing was written", hint="name another file")
            write_at(place.name, msgspec.json.encode(plan) + b"\n", 0o600, dir_fd=folder)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="name a file in a folder of yours") from None


def read_saved(path: str) -> SavedPlan:
    """Return a saved plan.

    Raises:
        InputError: It cannot be read, is not a saved plan, or another user could have changed it.
    """
    try:
        descriptor = open_regular(path, follow=True)
        try:
            state = os.fstat(descriptor)
            content = read_descriptor(descriptor, _MOST, path)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise InputError(
            path,
            "no such file: apply needs a saved plan, and cannot apply a part of a plan",
            hint="`rulegen plan --out FILE` saves a plan; `rulegen plan SERVICE` shows a part of it",
        ) from None
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None
    if state.st_uid not in {os.geteuid(), 0} or stat.S_IMODE(state.st_mode) & 0o022:
        raise InputError(path, "other users can change it", hint="save the plan again, and keep its owner and mode")
    try:
        saved = msgspec.json.decode(content, type=SavedPlan)
    except (msgspec.DecodeError, UnicodeDecodeError):
        saved = None
    if saved is None or saved.kind != KIND or saved.schema_version != 1:
        raise InputError(
            path,
            "it is not a saved plan of this version",
            hint="save one with `rulegen plan --out FILE`; -f PATH reads manifests",
        )
    return saved


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have exactly these variables of rulegen in the environment for a moment."""
    before = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    _replace({name: value for name, value in wanted.items() if name.startswith(_PREFIX)})
    try:
        yield
    finally:
        _replace(before)


def _replace(variables: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(_PREFIX)]:
        del os.environ[name]
    os.environ.update(variables)
