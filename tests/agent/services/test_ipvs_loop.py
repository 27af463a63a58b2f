"""The loop in ipvs mode: small writes, graceful endings that outlast a restart, damage to sets and servers mended."""

from __future__ import annotations

from rulegen.agent.inbox import Wake
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.ipvs.state import RealServer, RealServerKey, VirtualServerKey
from rulegen.net import Family
from tests.agent.stage import Stage, WholeWriter, changed, endpoints, node, service

WEB = [changed(node()), changed(service("web")), changed(endpoints("web", 1, 2))]


def ipvs_stage(before: Stage | None = None, **settings) -> Stage:
    stage = Stage(mode="ipvs", **settings)
    if before is not None:
        kernel_of(stage).node = kernel_of(before).node
    return stage


def kernel_of(stage: Stage) -> WholeWriter:
    assert isinstance(stage.writer, WholeWriter)
    return stage.writer


def weights(stage: Stage) -> dict[str, int]:
    servers = kernel_of(stage).node.servers.items()
    return {
        str(key.address): value.weight
        for key, value in servers
        if isinstance(key, RealServerKey) and isinstance(value, RealServer)
    }


def connections(stage: Stage, number: int) -> None:
    """Have every real server hold so many connections."""
    there = kernel_of(stage).node
    there.connections = {key: number for key in there.servers if isinstance(key, RealServerKey)}


def test_services_are_served_and_gone_ones_leave_nothing():
    stage = ipvs_stage()
    stage.at(0, *WEB)
    stage.at(3, Gone(k.Service, ObjectName("demo", "web")))
    stage.run()
    assert stage.is_right()
    assert (kernel_of(stage).node.servers, kernel_of(stage).node.addresses) == ({}, {})


def test_one_endpoint_costs_one_write():
    """One endpoint costs one write however many services there are."""
    for count in (1, 60):
        stage = ipvs_stage()
        stage.at(0, changed(node()))
        for number in range(1, count + 1):
            stage.at(0, changed(service(f"web-{number}", number)), changed(endpoints(f"web-{number}", number)))
        stage.at(3, changed(endpoints("web-1", 1, 200)))
        stage.run()
        assert kernel_of(stage).calls == [1]
        assert stage.is_right()


def test_a_removed_endpoint_keeps_its_connections():
    """A removed endpoint keeps its connections until they have ended."""
    stage = ipvs_stage()
    stage.at(0, *WEB)
    stage.at(2, lambda: connections(stage, 3))
    stage.at(3, changed(endpoints("web", 1)))
    stage.run(100)
    assert weights(stage) == {"10.244.1.1": 1, "10.244.1.2": 0}
    stage.at(0, lambda: connections(stage, 0))
    stage.run(200)
    assert weights(stage) == {"10.244.1.1": 1}
    assert [line for line in stage.log if "changed by another program" in line] == []


def test_a_restart_reads_what_drains_from_the_kernel():
    """Who begins anew finds what is on its way out in the kernel."""
    before = ipvs_stage()
    before.at(0, *WEB)
    before.at(2, lambda: connections(before, 3))
    before.at(3, changed(endpoints("web", 1)))
    before.run()
    stage = ipvs_stage(before)
    stage.at(0, changed(node()), changed(service("web")), changed(endpoints("web", 1)))
    stage.at(5, changed(endpoints("web", 1, 2)))  # it comes back before it has ended
    stage.run(20)
    assert weights(stage) == {"10.244.1.1": 1, "10.244.1.2": 1}
    assert stage.is_right()
    assert kernel_of(stage).calls == [1]


def test_foreign_ipvs_changes_are_repaired_and_logged():
    def spoil() -> None:
        there = kernel_of(stage).node
        there.addresses.clear()
        there.sets["KUBE-CLUSTER-IP"][1].clear()
        virtual = next(key for key in there.servers if isinstance(key, VirtualServerKey))
        for key in [key for key in there.servers if key.frontend == virtual.frontend]:
            del there.servers[key]

    stage = ipvs_stage()
    stage.at(0, *WEB)
    stage.at(5, spoil)
    stage.run(60)
    assert stage.is_right()
    lines = "\n".join(line for line in stage.log if "changed by another program" in line)
    assert "kind=address" in lines
    assert "kind=entry" in lines
    assert "10.96.0.1" in lines


def test_a_write_that_breaks_off_anywhere_is_taken_up():
    stage = ipvs_stage()
    stage.writer.failures.extend(["half", "lost", "half"])
    stage.at(0, *WEB)
    stage.at(40, changed(service("shop", 2)), changed(endpoints("shop", 7)))
    stage.run(120)
    assert stage.is_right()
    assert len({key.frontend.family for key in kernel_of(stage).node.servers}) == len(Family)


def test_what_goes_with_a_virtual_server_is_no_drift():
    """What goes with a virtual server while all is looked at is no work of others."""
    stage = ipvs_stage()
    stage.at(0, *WEB)
    stage.at(2, lambda: connections(stage, 3))
    stage.at(3, changed(endpoints("web", 1)))
    stage.at(6, Wake("check"))
    stage.at(6.2, changed(service("web", ports=(k.ServicePort(name="http", port=81),))))
    stage.run(10)
    assert stage.is_right()
    assert [line for line in stage.log if "changed by another program" in line] == []
