"""Parts of a plan in ipvs mode, on a kernel in memory whose IPVS, sets and device refuse as the real ones do."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from rulegen.errors import HostError
from rulegen.host.apart import Apart
from rulegen.host.ipset import SetError
from rulegen.host.ipvs import ServersError
from rulegen.host.links import AddressesError
from rulegen.kube import objects as k
from rulegen.kube.world import ObjectName, ServiceInput, World
from rulegen.languages.ipvs.state import VirtualServerKey
from rulegen.model.facts import HostFacts
from rulegen.model.resolve import resolve
from rulegen.plan.plan import Plan
from rulegen.road import compile_model, plan_node, with_held
from rulegen.road.held import held
from rulegen.road.order import Bind, Fill, Serve, tasks
from tests.agent.stage import OPTIONS, endpoints, service
from tests.nodekernel import NodeKernel

MODE = replace(OPTIONS, mode="ipvs")


def world(*names: str, protocol: str = "SCTP") -> World:
    """Return Services, of which `shop` has the protocol."""
    told = {}
    for number, name in enumerate(names, 1):
        of = protocol if name == "shop" else "TCP"
        one = service(name, number, ports=(k.ServicePort(name="http", port=80, protocol=of),))
        slices = endpoints(name, number)
        slices = k.EndpointSlice(
            metadata=slices.metadata,
            address_type="IPv4",
            endpoints=slices.endpoints,
            ports=(k.SlicePort(name="http", port=8080, protocol=of),),
        )
        told[ObjectName("demo", name)] = ServiceInput(service=one, slices=(slices,))
    return World(services=told)


class Host:
    """Writes a plan as the real host does: all that is not refused of a call, then the error."""

    def __init__(self, refuses: Callable[[str], HostError | None]) -> None:
        self.kernel = NodeKernel()
        self.refuses = refuses

    def write(self, plan: Plan) -> None:
        for task in tasks(plan):
            match task.work:
                case Serve(commands):
                    bad = [(c, errno.EPROTONOSUPPORT) for c in commands if self.refuses(f"serve {c}")]
                    for command in commands:
                        if not self.refuses(f"serve {command}"):
                            self.kernel._serve(command)
                    if bad:
                        raise ServersError(bad, len(commands))
                case Fill(text):
                    for line in text.splitlines():
                        if self.refuses(f"fill {line}"):
                            raise SetError(text, f"ipset v7.17: Error in line {text.splitlines().index(line) + 1}: no")
                        self.kernel._set_line(line)
                case Bind(commands):
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
    verdict = Apart(wants, look(), host.write, look).search(failure.value)
    assert set(verdict.refused) == {"demo/shop"}
    rest = compile_model(resolve(world_without(all_of_it, "shop"), MODE, HostFacts()), "ipvs", counts=False)
    rest = with_held(rest, held(wants, first, verdict.refused))
    host.write(plan_node(rest, host.kernel.observed(), HostFacts()))
    assert plan_node(rest, host.kernel.observed(), HostFacts()).is_empty
    served = {str(key.frontend.address) for key in host.kernel.servers if isinstance(key, VirtualServerKey)}
    assert {"10.96.0.1", "10.96.0.3"} <= served
    assert "10.96.0.2" not in served


def world_without(world: World, name: str) -> World:
    return World(services={key: told for key, told in world.services.items() if key.name != name})
