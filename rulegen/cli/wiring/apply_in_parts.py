"""`apply` if the kernel rejects a Service: all others are written, it is left out, and the exit code is 1."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.cli.terminal.console import note
from rulegen.cli.wiring.planning import observe_live
from rulegen.compiler.services.compile import compile_model, with_held
from rulegen.compiler.services.pinned import held
from rulegen.compiler.services.plan import plan_node
from rulegen.errors import HostError, RulegenError
from rulegen.host.dataplane.apply import perform
from rulegen.host.dataplane.apply_in_parts import Apart
from rulegen.host.dataplane.refused_services import is_refusal
from rulegen.host.ipvs.servers import SchedulerError
from rulegen.kube.proxyconfig.validation import SCHEDULERS
from rulegen.model.services.resolve import resolve
from rulegen.model.services.stale_flows import StaleUdpPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.cli.wiring.inputs import Inputs
    from rulegen.cli.wiring.planning import LivePlan
    from rulegen.compiler.services.compile import Compiled
    from rulegen.plan.plan import Plan

MOST_ROUNDS: Final = 5
"""Maximum number of searches for rejected Services."""


class LeftOutError(RulegenError):
    """The kernel rejects some Services, which were left out; all others were written."""

    def __init__(self, left_out: Mapping[str, str]) -> None:
        lines = [f"Service {owner}: {reason}" for owner, reason in sorted(left_out.items())]
        super().__init__(
            "the kernel rejects the rules of these Services; their old rules stay, and all others are written:\n"
            + "\n".join(lines),
            hint="load the missing kernel modules, or change these Services; then apply again",
        )


@dataclass(slots=True)
class ApartWriter:
    """Writes a plan without the rejected Services.

    Attributes:
        inputs: The desired state.
        live: The plan, and the state of the kernel before it.
        titles: Completed steps, as text.
    """

    inputs: Inputs
    live: LivePlan
    titles: list[str] = field(default_factory=list)

    def write(self, error: HostError) -> dict[str, str]:
        """Write everything except the rejected Services; return these with the reasons.

        Args:
            error: Why the whole plan was rejected.

        Raises:
            HostError: No Service is the cause, or it cannot be found.
        """
        if isinstance(error.__cause__, SchedulerError):
            return self._write_with_fewer(error.__cause__)
        if not is_refusal(error, self.live.dataplane.drivers):
            raise error
        left_out: dict[str, str] = {}
        compiled, plan = self.live.compiled, self.live.plan
        for turn in range(MOST_ROUNDS):
            self.inputs.progress("searching for the Services that the kernel rejects …")
            apart = Apart(compiled, plan, self._put, self._look_for(compiled), self.live.dataplane.drivers)
            verdict = apart.search(error)
            if not verdict.refused:
                raise error
            is_last = turn == MOST_ROUNDS - 1
            left_out |= {
                owner: why for owner, why in verdict.refused.items() if is_last or owner not in verdict.untried
            }
            compiled = self._without(left_out)
            plan = self._look_for(compiled)()
            try:
                self._put(plan)
            except HostError as again:
                if not is_refusal(again, self.live.dataplane.drivers):
                    raise
                error = again
            else:
                return left_out
        raise error

    def _write_with_fewer(self, error: SchedulerError) -> dict[str, str]:
        """Write the plan for a kernel without a scheduler that some Services request: they get another one."""
        inputs, counts = self.inputs, self.live.compiled.counts
        known = SCHEDULERS if inputs.facts.schedulers is None else inputs.facts.schedulers
        facts = replace(inputs.facts, schedulers=frozenset(known) - {error.scheduler})
        model = resolve(inputs.world, inputs.options, facts, facts.families)
        note(f"{error.message}: Services work without it")
        self._put(self._look_for(compile_model(model, inputs.options.mode, counts=counts, tables=inputs.tables))())
        return {}

    def _without(self, left_out: Mapping[str, str]) -> Compiled:
        """Return the desired state without some Services, with their current state in the kernel."""
        inputs, live = self.inputs, self.live
        services = {name: service for name, service in inputs.world.services.items() if str(name) not in left_out}
        model = resolve(
            msgspec.structs.replace(inputs.world, services=services),
            inputs.options,
            inputs.facts,
            inputs.facts.families,
        )
        compiled = compile_model(model, inputs.options.mode, counts=live.compiled.counts, tables=inputs.tables)
        return with_held(compiled, held(live.compiled, live.observed, left_out, compiled))

    def _look_for(self, compiled: Compiled) -> Callable[[], Plan]:
        def look() -> Plan:
            inputs = self.inputs
            _, observed = observe_live(inputs)
            stale_udp = StaleUdpPolicy(inputs.chosen.stale_udp)
            return plan_node(compiled, observed, inputs.facts, inputs.world.service_cidrs, stale_udp)

        return look

    def _put(self, plan: Plan) -> None:
        work = self.live.dataplane.steps(plan)
        perform(work, lambda _, step: self.inputs.progress(step.title))
        self.titles += (step.title for step in work)
