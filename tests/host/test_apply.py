"""Applying a plan: step by step, and at a failure it is said what was written and what was not."""

from __future__ import annotations

import pytest

from rulegen.compiler.services.compile import compile_model
from rulegen.compiler.services.plan import plan_node
from rulegen.errors import ApplyError
from rulegen.host.commands.runner import Command, Completed
from rulegen.host.dataplane.apply import perform, steps
from rulegen.host.dataplane.driver import WriteContext
from rulegen.host.netfilter.variant import Variant
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.iptables.ruleset import read
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family
from tests.kernels.kernel import Kernel, RefusedError, commits
from tests.kernels.observed import observing


class Tools:
    """`iptables-nft-restore` on a kernel in memory; `refuses` makes the nth call fail behind its first commit."""

    def __init__(self, refuses: int | None = None) -> None:
        self.kernel = Kernel()
        self.calls = 0
        self.refuses = refuses

    def __call__(self, command: Command) -> Completed:
        self.calls += 1
        done = commits(command.stdin)
        try:
            for number, commit in enumerate(done):
                if self.calls == self.refuses and number == len(done) - 1:
                    line = command.stdin.splitlines().index(f"*{commit[0][1:]}") + 2
                    return Completed(2, "", f"iptables-nft-restore: line {line} failed: No buffer space available.\n")
                self.kernel.commit(commit)
        except RefusedError as error:
            return Completed(1, "", str(error))
        return Completed(0)


def wants(count: int):
    services = {}
    for number in range(count):
        spec = k.ServiceSpec(cluster_ip=f"10.96.0.{number + 1}", ports=(k.ServicePort(name="http", port=80),))
        name = f"s{number}"
        service = k.Service(metadata=k.ObjectMeta(name=name, namespace="shop"), spec=spec)
        slice_ = k.EndpointSlice(
            metadata=k.ObjectMeta(name=name, namespace="shop", labels={"kubernetes.io/service-name": name}),
            address_type="IPv4",
            endpoints=(k.SliceEndpoint(addresses=(f"10.244.0.{number + 1}",)),),
            ports=(k.SlicePort(name="http", port=8080),),
        )
        services[ObjectName("shop", name)] = ServiceInput(service=service, slices=(slice_,))
    model = resolve(ClusterSnapshot(services=services), Options(node_name="node1"), HostFacts(), (Family.IPV4,))
    return compile_model(model, "iptables", counts=False)


def plan_for(compiled, kernel: Kernel):
    observed = observing(rulesets={Family.IPV4: read(kernel.save(), "kernel", Family.IPV4)})
    return plan_node(compiled, observed, HostFacts())


def test_a_plan_of_nothing_calls_nothing():
    tools = Tools()
    compiled = wants(2)
    perform(steps(plan_for(compiled, tools.kernel), WriteContext(run=tools, variant=Variant.NFT, wait_s=5)))
    calls = tools.calls
    perform(steps(plan_for(compiled, tools.kernel), WriteContext(run=tools, variant=Variant.NFT, wait_s=5)))
    assert tools.calls == calls > 0


def test_steps_are_announced_before_they_start():
    tools, announced = Tools(), []
    compiled = wants(3)
    work = steps(plan_for(compiled, tools.kernel), WriteContext(run=tools, variant=Variant.NFT, wait_s=5))
    perform(work, lambda number, step: announced.append((number, step.title)))
    assert announced == list(enumerate(step.title for step in work))
    assert plan_for(compiled, tools.kernel).is_empty


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_the_next_apply_continues_after_a_rejected_write(fails_at):
    compiled = wants(250)  # more chains than one commit takes
    tools = Tools(refuses=fails_at)
    work = steps(plan_for(compiled, tools.kernel), WriteContext(run=tools, variant=Variant.NFT, wait_s=5))
    assert len(work) >= 3
    with pytest.raises(ApplyError) as failed:
        perform(work)
    error = failed.value
    assert "No buffer space available" in error.message
    assert "\n" in error.message  # the offending line, with those around it
    assert error.pending == tuple(step.title for step in work[fails_at - 1 :])
    assert error.applied[: fails_at - 1] == tuple(step.title for step in work[: fails_at - 1])
    assert error.hint
    tools.refuses = None
    perform(steps(plan_for(compiled, tools.kernel), WriteContext(run=tools, variant=Variant.NFT, wait_s=5)))
    assert plan_for(compiled, tools.kernel).is_empty


def test_legacy_writes_each_table_once():
    plan = plan_for(wants(250), Kernel())
    assert len(steps(plan, WriteContext(run=Tools(), variant=Variant.LEGACY, wait_s=5))) == 1
    assert len(steps(plan, WriteContext(run=Tools(), variant=Variant.NFT, wait_s=5))) > 1
