"""Read-only pages for this host: what would be written now, the decisions, and the desired rules.

Each page exists as text and as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import AS_JSON
from rulegen.compiler.services.compile import printed
from rulegen.errors import HostError
from rulegen.languages.iptables.state import ruleset_of
from rulegen.model.services.document import model_document
from rulegen.plan import show
from rulegen.plan.plan import Plan, with_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.agent.ingress.sync import IngressSync
    from rulegen.agent.services.sync import ServiceSync
    from rulegen.compiler.services.compile import Compiled
    from rulegen.model.services.ir import ResolvedPort

PATHS: Final = ("/plan", "/model", "/rules")


def views(sync: ServiceSync, site: IngressSync | None = None) -> Mapping[str, Callable[[], Reply]]:
    """Return the pages, by path."""
    return {
        "/plan": lambda: _viewed(sync, lambda compiled: _text_of_plan(*_plan(sync, compiled, site))),
        f"/plan{AS_JSON}": lambda: _viewed(sync, lambda compiled: show.json_document(*_plan(sync, compiled, site))),
        "/model": lambda: _viewed(sync, lambda compiled: "\n".join(_model_lines(compiled)) + "\n"),
        f"/model{AS_JSON}": lambda: _viewed(sync, lambda compiled: model_document(compiled.model)),
        "/rules": lambda: _viewed(sync, _text_of_rules),
        f"/rules{AS_JSON}": lambda: _viewed(sync, _rules_document),
    }


def _plan(sync: ServiceSync, compiled: Compiled, site: IngressSync | None) -> tuple[Plan, show.Report]:
    """Return the current plan and its report."""
    plan, report = sync.writer.plan(compiled), _report(sync, compiled)
    decided = site.site if site is not None else None
    if site is None or decided is None:
        return plan, report
    live = site.live.with_notes([])  # a copy, because the original notes are for the agent's log
    observed = live.observe()
    compared_with = f"{live.location}, {'which serves nothing yet' if observed is None else 'as it is served'}"
    with_reasons = replace(report, reasons=decided.model.reasons, site=compared_with)
    return with_site(plan, live.plan(decided, observed)), with_reasons


def _text_of_plan(plan: Plan, report: show.Report) -> str:
    return "\n".join(show.text(plan, report, colour=False, details=show.Details.ALL)) + "\n"


def _report(sync: ServiceSync, compiled: Compiled) -> show.Report:
    return show.Report(
        node=compiled.model.node_name,
        mode=sync.desired.options.mode,
        observed=f"iptables-{sync.writer.choice.variant} of this host",
        rejected=tuple(sync.desired.cluster.rejected()),
        warnings=(*compiled.model.warnings, *sync.left_out.texts()),
        services={str(name): service for name, service in compiled.model.services.items()},
    )


def _model_lines(compiled: Compiled) -> Iterator[str]:
    """Yield the decisions, one line for each port of a Service."""
    model = compiled.model
    yield f"Node {model.node_name}, {len(model.services)} Services"
    yield from (f"warning: {warning}" for warning in model.warnings)
    yield from (f"parameter: {name} = {value}" for name, value in sorted(model.sysctls.items()))
    for service in model.services.values():
        yield ""
        yield f"{service.name} ({service.type})"
        yield from (line for port in service.ports for line in _port_lines(port))


def _port_lines(port: ResolvedPort) -> Iterator[str]:
    name = f" {port.name}" if port.name else ""
    where = [str(port.cluster_ip)] if port.cluster_ip else []
    where += [f"{address} (external)" for address in port.external_ips]
    where += [f"{address} (load balancer)" for address in port.load_balancer_ips]
    where += [f"node port {port.node_port}"] if port.node_port else []
    yield f"  {port.family} {port.protocol.lower()} {port.port}{name}: {', '.join(where) or 'nowhere'}"
    pools = [("cluster", port.cluster)] if port.cluster else []
    pools += [("local", port.local)] if port.local else []
    for pool, endpoints in pools:
        yield f"    {pool}: {', '.join(endpoint.text for endpoint in endpoints)}"
    external = f"; from outside: {port.external.value}" if port.is_external else ""
    yield f"    to its ClusterIP: {port.internal.value}{external}"


def _text_of_rules(compiled: Compiled) -> str:
    """Return the desired state in the format of the standard tools: rules, sets and virtual servers."""
    return "".join(f"# {each.title}\n{each.text}" for each in printed(compiled) if each.title)


def _rules_document(compiled: Compiled) -> dict[str, Any]:
    """Return rules by family, table and chain."""
    families: dict[str, dict[str, dict[str, list[str]]]] = {}
    for family in compiled.fragments:
        tables = families.setdefault(str(family), {})
        for name, chain in ruleset_of(compiled.rules(family)).chains.items():
            tables.setdefault(name.table, {})[name.chain] = [rule.line for rule in chain.rules]
    return {"schemaVersion": show.SCHEMA_VERSION, "kind": "Rules", "node": compiled.model.node_name, "rules": families}


def _viewed(sync: ServiceSync, view: Callable[[Compiled], str | dict[str, Any]]) -> Reply:
    compiled = sync.desired.compiled()
    if compiled is None:
        return Reply(503, "not all lists were received yet\n")
    try:
        shown = view(compiled)
    except HostError as error:
        return Reply(500, f"{error.message}\n")
    if isinstance(shown, str):
        return Reply(200, shown)
    return Reply(200, msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n", "application/json")
