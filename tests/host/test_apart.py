"""Parts of a plan in ipvs mode, on a kernel in memory whose IPVS, sets and device refuse as the real ones do."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from msgspec import structs

from rulegen.cli.wiring.apply_in_parts import ApartWriter
from rulegen.compiler.services.compile import Compiled, compile_model, with_held
from rulegen.compiler.services.ordering import tasks
from rulegen.compiler.services.pinned import held
from rulegen.compiler.services.plan import plan_node
from rulegen.compiler.tables import TABLES
from rulegen.errors import ApplyError, HostError
from rulegen.host.dataplane.apply_in_parts import Apart
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.ipvs.addresses import AddressesError
from rulegen.host.ipvs.servers import SchedulerError, ServersError
from rulegen.host.netfilter.ipset import SetError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.languages.addresses.language import ChangeAddresses
from rulegen.languages.ipset.language import RestoreIpsets
from rulegen.languages.ipvs.language import ChangeVirtualServers
from rulegen.languages.ipvs.state import VirtualServer, VirtualServerKey
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.annotations.scheduler import SCHEDULER
from rulegen.model.services.resolve import resolve
from rulegen.plan.plan import Plan
from tests.agent.stage import OPTIONS, endpoints, service
from tests.kernels.nodekernel import NodeKernel

MODE = msgspec.structs.replace(OPTIONS, mode="ipvs")


def world(*names: str, protocol: str = "SCTP") -> ClusterSnapshot:
    """Return Services, of which `shop` has the protocol."""
    services = {}
    for number, name in enumerate(names, 1):
        of = protocol if name == "shop" else "TCP"
        built = service(name, number, ports=(k.ServicePort(name="http", port=80, protocol=of),))
        slices = endpoints(name, number)
        slices = k.EndpointSlice(
            metadata=slices.metadata,
            address_type="IPv4",
            endpoints=slices.endpoints,
            ports=(k.SlicePort(name="http", port=8080, protocol=of),),
        )
        services[ObjectName("demo", name)] = ServiceInput(service=built, slices=(slices,))
    return ClusterSnapshot(services=services)


class Host:
    """Writes a plan as the real host does: all that is not refused of a call, then the error."""

    def __init__(self, refuses: Callable[[str], HostError | None]) -> None:
        self.kernel = NodeKernel()
        self.refuses = refuses

    def write(self, plan: Plan) -> None:
        for task in tasks(plan):
            match task.work:
                case ChangeVirtualServers(commands):
                    bad = [(c, errno.EPROTONOSUPPORT) for c in commands if self.refuses(f"serve {c}")]
                    for command in commands:
                        if not self.refuses(f"serve {command}"):
                            self.kernel._serve(command)
                    if bad:
                        raise ServersError(bad, len(commands))
                case RestoreIpsets(text):
                    for line in text.splitlines():
                        if self.refuses(f"fill {line}"):
                            raise SetError(text, f"ipset v7.17: Error in line {text.splitlines().index(line) + 1}: no")
                        self.kernel._set_line(line)
                case ChangeAddresses(commands):
                    bad = [(c, errno.EINVAL) for c in commands if self.refuses(f"bind {c}")]
                    for command in commands:
                        if not self.refuses(f"bind {command}"):
                            self.kernel._bind(command)
                    if bad:
                        raise AddressesError(bad, len(commands) - len(bad), len(commands))
                case work:
                    for piece in self.kernel._pieces(work):
                        piece()


@pytest.mark.parametrize(
    ("refuses", "protocol"),
    [
        (lambda line: line.startswith("serve") and "--sctp-service 10.96.0.2" in line, "SCTP"),
        (lambda line: line.startswith("fill add") and "10.96.0.2," in line, "TCP"),
        (lambda line: line.startswith("bind") and "10.96.0.2" in line, "TCP"),
    ],
    ids=["IPVS without SCTP", "a set", "an address"],
)
def test_one_service_that_is_refused_leaves_the_others_served(refuses, protocol):
    host = Host(refuses)
    all_of_it = world("api", "shop", "web", protocol=protocol)
    wants = compile_model(resolve(all_of_it, MODE, HostFacts()), "ipvs", counts=False)
    first = host.kernel.observed()

    def look() -> Plan:
        return plan_node(wants, host.kernel.observed(), HostFacts())

    with pytest.raises(HostError) as failure:
        host.write(look())
    verdict = Apart(wants, look(), host.write, look, DRIVERS).search(failure.value)
    assert set(verdict.refused) == {"demo/shop"}
    rest = compile_model(resolve(world_without(all_of_it, "shop"), MODE, HostFacts()), "ipvs", counts=False)
    rest = with_held(rest, held(wants, first, verdict.refused))
    host.write(plan_node(rest, host.kernel.observed(), HostFacts()))
    assert plan_node(rest, host.kernel.observed(), HostFacts()).is_empty
    served = {str(key.frontend.address) for key in host.kernel.servers if isinstance(key, VirtualServerKey)}
    assert {"10.96.0.1", "10.96.0.3"} <= served
    assert "10.96.0.2" not in served


def world_without(world: ClusterSnapshot, name: str) -> ClusterSnapshot:
    return ClusterSnapshot(services={key: entry for key, entry in world.services.items() if key.name != name})


def test_a_missing_scheduler_is_replaced_by_the_nodes_own():
    snapshot = world("api", "shop", protocol="TCP")
    (name,) = (name for name in snapshot.services if name.name == "shop")
    plain = snapshot.services[name].service
    annotated = structs.replace(plain, metadata=structs.replace(plain.metadata, annotations={SCHEDULER.name: "sh"}))
    snapshot = ClusterSnapshot(
        services={**snapshot.services, name: replace(snapshot.services[name], service=annotated)}
    )
    inputs = SimpleNamespace(world=snapshot, options=MODE, facts=HostFacts(), progress=lambda _: None, tables=TABLES)
    wants = compile_model(resolve(snapshot, MODE, HostFacts()), "ipvs", counts=False)
    schedulers = {value.scheduler for value in wants.objects("ipvs").values() if isinstance(value, VirtualServer)}
    assert schedulers == {"rr", "sh"}
    kernel = NodeKernel()

    class Writer(ApartWriter):
        def _put(self, plan: Plan) -> None:
            kernel.write(plan)

        def _look_for(self, compiled: Compiled) -> Callable[[], Plan]:
            return lambda: plan_node(compiled, kernel.observed(), HostFacts())

    error = ApplyError("no sh", applied=(), pending=())
    error.__cause__ = SchedulerError("sh")
    assert Writer(inputs, SimpleNamespace(compiled=wants)).write(error) == {}
    assert {value.scheduler for value in kernel.servers.values() if isinstance(value, VirtualServer)} == {"rr"}
    assert len({str(key.frontend.address) for key in kernel.servers if key.frontend.address.version == 4}) == 2
