"""What the agent shows on loopback: what it would write now, what it decided, and the rules as text. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rulegen.agent.servers import Reply
from rulegen.errors import HostError
from rulegen.languages.iptables.ruleset import format_ruleset
from rulegen.languages.iptables.state import ruleset_of
from rulegen.model.document import model_document
from rulegen.plan import show

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.loop import Loop
    from rulegen.road import Compiled


def plan_view(loop: Loop) -> Reply:
    """Return what would be written now, against the kernel as it is now."""

    def view(compiled: Compiled) -> str:
        plan = loop.writer.plan(compiled)
        observed = f"iptables-{loop.writer.choice.variant} of this host"
        report = show.Report(node=compiled.model.node_name, mode=loop.options.mode, observed=observed)
        return "\n".join(show.text(plan, report, colour=False)) + "\n"

    return _viewed(loop, view)


def model_view(loop: Loop) -> Reply:
    """Return every decision, as JSON."""

    def view(compiled: Compiled) -> str:
        return msgspec.json.format(msgspec.json.encode(model_document(compiled.model)), indent=2).decode() + "\n"

    return _viewed(loop, view, "application/json")


def rules_view(loop: Loop) -> Reply:
    """Return the rules as iptables-restore reads them."""

    def view(compiled: Compiled) -> str:
        return "".join(
            f"# {family}\n{format_ruleset(ruleset_of(compiled.rules(family)))}" for family in compiled.fragments
        )

    return _viewed(loop, view)


def _viewed(loop: Loop, view: Callable[[Compiled], str], kind: str = "text/plain; charset=utf-8") -> Reply:
    compiled = loop.compiled()
    if compiled is None:
        return Reply(503, "not all lists have come yet\n")
    try:
        return Reply(200, view(compiled), kind)
    except HostError as error:
        return Reply(500, f"{error.message}\n")
