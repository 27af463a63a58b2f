"""One Service that the kernel refuses harms only itself: it is left out, the rest is served, and it is tried again."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass
from urllib.request import urlopen

import pytest
from msgspec import structs

from rulegen.agent.inbox import Wake
from rulegen.agent.pages import views
from rulegen.agent.pages_server.health import ServiceHealth
from rulegen.agent.services.left_out import RETRY_S
from rulegen.agent.telemetry.events import EventRequest
from rulegen.host.commands.runner import Completed
from rulegen.host.dataplane import refused_services
from rulegen.host.dataplane.dataplane import KernelRevision
from rulegen.host.dataplane.kernel import KernelDataplane
from rulegen.host.netfilter.variant import Variant, VariantChoice
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.net import Family
from tests.agent.stage import FACTS, NODE, Stage, changed, endpoints, node, service
from tests.kernels.kernel import Kernel
from tests.kernels.refusing import Tools

STICKY = {
    "session_affinity": "ClientIP",
    "session_affinity_config": k.SessionAffinityConfig(client_ip=k.ClientIPConfig(timeout_seconds=60)),
}


@dataclass
class StandIn(KernelDataplane):
    """Writes as on a host, by tools that stand in."""

    def _generation(self) -> int | None:
        return None

    def refresh(self):
        return frozenset()

    def read(self):
        reading = super().read()
        return reading._replace(mark=KernelRevision(None, self.commits, "read"))

    def is_untouched(self, mark: KernelRevision) -> bool:
        return mark.commits == self.commits


class Node(Stage):
    def __init__(self, variant: Variant, kind: type[StandIn] = StandIn, **settings) -> None:
        self.tools = Tools(variant, refuses=lambda line: "-m recent" in line)
        self.events = []
        self.event_s = 0.0
        writer = kind(self.tools, VariantChoice(variant, "for a test"), FACTS)
        super().__init__(writer=writer, send_event=self.sent, **settings)

    def sent(self, event: EventRequest) -> None:
        """Take an event, and some time."""
        self.events.append(event)
        self.clock.now += self.event_s

    def ends(self, family: Family = Family.IPV4) -> list[str]:
        nat = self.tools.kernels[family].tables["nat"]
        return sorted(rule.rpartition(" ")[2] for rules in nat.values() for rule in rules if "-j DNAT" in rule)

    def dispatch(self) -> str:
        return "\n".join(self.tools.kernels[Family.IPV4].tables["nat"]["KUBE-SERVICES"])

    @property
    def plan(self) -> str:
        return views(self.loop)["/plan"]().body

    @property
    def failed(self) -> list[str]:
        return [line for line in self.log if "not written" in line]


@pytest.fixture(params=list(Variant), ids=str)
def stage(request) -> Node:
    return Node(request.param)


def three(*, shop: dict[str, object] = STICKY) -> list:
    return [
        changed(node()),
        *(changed(service(name, number)) for number, name in enumerate(("api", "web"), 1)),
        changed(service("shop", 9, **shop)),
        changed(endpoints("api", 1)),
        changed(endpoints("web", 2)),
        changed(endpoints("shop", 9)),
    ]


class TestFirst:
    @pytest.mark.not_quick
    def test_the_rejected_service_is_reported_others_served(self, stage):
        stage.at(0, *three())
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert "10.96.0.9" not in stage.dispatch()
        assert stage.failed == []
        assert stage.state.is_alive
        (line,) = (line for line in stage.log if "left out" in line and "services=" in line)
        assert "demo/shop" in line
        assert [(event.about.kind, event.about.name, event.reason) for event in stage.events] == [
            ("Service", "shop", "LeftOut")
        ]
        assert stage.state.metrics.left_out.value == 1
        assert "Service demo/shop is left out" in stage.plan
        assert "No changes" in stage.plan

    def test_what_the_tool_said_is_the_reason(self):
        stage = Node(Variant.NFT)
        stage.at(0, *three())
        stage.run(20)
        assert "-m recent" in stage.events[0].note
        assert "RULE_APPEND failed (No such file or directory)" in stage.events[0].note

    def test_a_refused_parameter_is_reported_beside_a_refused_write(self, stage):
        """A kernel parameter that cannot be set is told though the write behind it is refused."""

        class InContainer(StandIn):
            def write(self, plan):
                self.refused["net.ipv4.x"] = "sysctl net.ipv4.x = 1: read-only"
                return super().write(plan)

        stage = Node(stage.tools.variant, InContainer)
        stage.at(0, *three())
        stage.at(5, Wake("check"))
        stage.run(20)
        assert stage.tools.refusals
        (line,) = (line for line in stage.log if "kernel parameter not set" in line)
        assert "net.ipv4.x" in line

    def test_nothing_is_searched_for_where_nothing_is_refused(self, stage):
        stage.at(0, *three(shop={}))
        stage.run(20)
        assert stage.tools.refusals == 0
        assert len(stage.ends()) == 3

    @pytest.mark.parametrize(
        "end",
        [
            Completed(4, "", "Another app is currently holding the xtables lock"),
            Completed(1, "", "iptables-restore: Cannot allocate memory"),
            Completed(4, "", "iptables-nft-restore: line 3: RULE_APPEND failed (Cannot allocate memory): rule in T"),
            Completed(4, "", "iptables-restore: Permission denied (you must be root)"),
            Completed(-9, "", ""),
        ],
        ids=["lock", "memory", "memory in nft", "privilege", "signal"],
    )
    def test_a_failure_that_is_not_by_a_service_is_not_searched(self, stage, end):
        stage.at(0, *three(shop={}))
        stage.tools.ends.append(end)
        stage.run(0.5)
        assert len(stage.tools.scripts) == 1
        assert len(stage.failed) == 1
        assert stage.state.metrics.left_out.value == 0

    def test_what_the_node_itself_needs_is_refused_as_a_whole(self, stage):
        stage.tools.refuses = lambda line: "MASQUERADE" in line
        stage.at(0, *three())
        stage.run(0.5)
        assert len(stage.failed) == 1
        assert stage.ends() == []

    def test_one_refused_family_leaves_the_service_out_in_both(self, stage):
        """A service of which one family is refused is left out in both."""
        stage.tools.refuses = lambda line: "fd00:10:96::9" in line
        v6 = k.EndpointSlice(
            metadata=k.ObjectMeta(name="shop-6", namespace="demo", labels={"kubernetes.io/service-name": "shop"}),
            address_type="IPv6",
            endpoints=(k.SliceEndpoint(addresses=("fd00:10:244::9",), conditions=k.EndpointConditions(ready=True)),),
            ports=(k.SlicePort(name="http", port=8080, protocol="TCP"),),
        )
        stage.at(0, *three(shop={}), changed(v6))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert stage.ends(Family.IPV6) == []
        assert stage.failed == []


class TestLater:
    def test_the_old_rules_stay_whole_while_a_new_form_is_refused(self, stage):
        stage.at(0, *three(shop={}))
        stage.at(5, changed(service("shop", 9, **STICKY)), changed(endpoints("shop", 10, 11)))
        stage.at(6, changed(endpoints("web", 3)))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.3:8080", "10.244.1.9:8080"]
        assert "10.96.0.9" in stage.dispatch()
        assert stage.failed == []
        assert "No changes" in stage.plan

    def test_old_rules_stay_under_another_address_and_protocol(self, stage):
        """The old rules stay though the new form has another address and protocol."""
        new = service("shop", 19, ports=(k.ServicePort(name="http", port=81, protocol="UDP"),), **STICKY)
        slices = endpoints("shop", 10)
        ports = (k.SlicePort(name="http", port=8080, protocol="UDP"),)
        stage.at(0, *three(shop={}))
        stage.at(5, changed(new), changed(structs.replace(slices, ports=ports)))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.9:8080"]
        assert "10.96.0.9/32" in stage.dispatch()
        assert "10.96.0.19/32" not in stage.dispatch()
        assert stage.failed == []

    def test_others_are_written_while_a_service_is_left_out(self, stage):
        """Others are written while one is left out and nothing is tried for it."""
        stage.at(0, *three())
        before = []
        stage.at(4, lambda: before.append(stage.tools.refusals))
        for second in range(5, 10):
            stage.at(second, changed(endpoints("web", second)))
        stage.at(10, Gone(k.Service, ObjectName("demo", "api")))
        stage.run(60)
        assert stage.ends() == ["10.244.1.9:8080"]
        assert stage.tools.refusals == before[0]
        assert stage.failed == []

    def test_it_is_served_once_its_object_is_accepted(self, stage):
        """It is served once its object asks for nothing that is refused."""
        stage.at(0, *three())
        stage.at(5, changed(service("shop", 9)))
        stage.run(6)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.9:8080"]
        assert stage.state.metrics.left_out.value == 0
        assert [line for line in stage.log if "no longer left out" in line]

    def test_it_is_tried_again_after_five_minutes(self, stage):
        """It is tried again after five minutes and served if the kernel can by then."""
        stage.at(0, *three())
        stage.at(100, lambda: setattr(stage.tools, "refuses", lambda line: False))
        stage.at(RETRY_S - 1, lambda: stage.events.append(stage.ends()))
        stage.run(RETRY_S + 5)
        assert len(stage.events[-1]) == 2
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.9:8080"]

    @pytest.mark.not_quick
    def test_repeated_rejections_are_reported_once(self, stage):
        stage.at(0, *three())
        stage.run(4 * RETRY_S)
        assert len([line for line in stage.log if "services=demo/shop" in line]) == 1
        assert len(stage.events) == 1

    def test_a_service_that_goes_while_it_is_left_out_leaves_nothing(self, stage):
        stage.at(0, *three(shop={}))
        stage.at(5, changed(service("shop", 9, **STICKY)))
        stage.at(8, Gone(k.Service, ObjectName("demo", "shop")))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert "10.96.0.9" not in stage.dispatch()
        assert stage.state.metrics.left_out.value == 0

    def test_a_restart_keeps_the_old_rules_of_what_is_refused(self, stage):
        stage.at(0, *three(shop={}))
        stage.run(5)
        again = Node(stage.tools.variant)
        again.tools.kernels = stage.tools.kernels
        again.at(0, *three(), changed(endpoints("shop", 10)))
        again.run(20)
        assert again.ends() == ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.9:8080"]
        assert "10.96.0.9" in again.dispatch()
        assert again.failed == []

    def test_a_change_of_the_node_keeps_out_what_is_left_out(self, stage):
        """What changes the node decides all anew but not what is left out."""
        stage.at(0, *three(shop={}))
        stage.at(5, changed(service("shop", 9, **STICKY)))
        refusals = []
        stage.at(8, lambda: refusals.append(stage.tools.refusals))
        stage.at(9, changed(node("zone-b")))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.2:8080", "10.244.1.9:8080"]
        assert stage.tools.refusals == refusals[0]

    @pytest.mark.parametrize("fails", [False, True], ids=["node", "node, and a lock is held"])
    def test_old_rules_stay_though_nothing_new_leads_to_them(self, stage, fails):
        """The old rules stay too where nothing of the new form leads to them."""
        new = service("shop", 19, ports=(k.ServicePort(name="http", port=81, protocol="UDP"),), **STICKY)
        ports = (k.SlicePort(name="http", port=8080, protocol="UDP"),)
        stage.at(0, *three(shop={}))
        stage.at(5, changed(new), changed(structs.replace(endpoints("shop", 10), ports=ports)))
        if fails:
            stage.at(8, lambda: stage.tools.ends.append(Completed(4, "", "Another app is holding the xtables lock")))
        stage.at(9, changed(node("zone-b")), changed(endpoints("web", 3)))
        stage.run(20)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.3:8080", "10.244.1.9:8080"]
        assert "10.96.0.9/32" in stage.dispatch()

    def test_refused_old_rules_stop_nobody(self, stage):
        """Old rules that are refused too once others took them away stop nobody."""

        def flush() -> None:
            stage.tools.refuses = lambda line: "-m recent" in line or "10.96.0.9/32" in line
            stage.tools.kernels[Family.IPV4] = Kernel()
            stage.signals.put(Wake("check"))

        stage.at(0, *three(shop={}))
        stage.at(5, changed(service("shop", 9, **STICKY)))
        stage.at(9, flush)
        stage.at(40, changed(endpoints("web", 3)))
        stage.run(200)
        assert stage.ends() == ["10.244.1.1:8080", "10.244.1.3:8080"]
        assert stage.state.is_alive
        assert len(stage.failed) <= 1

    def test_health_checks_answer_for_old_rules_while_they_stay(self, stage):
        """Load balancers are told of the old rules while they stay."""
        local = {
            "type": "LoadBalancer",
            "external_traffic_policy": "Local",
            "health_check_node_port": 0,
            "ports": (k.ServicePort(name="http", port=80, node_port=30080),),
        }
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            local["health_check_node_port"] = free.getsockname()[1]
        health = stage.reports.health = ServiceHealth(stage.state, stage.agent_log)
        answers: list[int] = []

        def ask() -> None:
            try:
                with urlopen(f"http://127.0.0.1:{local['health_check_node_port']}/", timeout=5) as answer:
                    answers.append(answer.status)
            except OSError:
                answers.append(0)

        stage.at(0, *three(shop=local), changed(endpoints("shop", 9, node=NODE)))
        stage.at(5, ask, changed(service("shop", 9, **STICKY, **local)))
        stage.at(8, ask, changed(node("zone-b")))
        stage.at(40, ask, Gone(k.Service, ObjectName("demo", "shop")))
        stage.at(45, ask)
        stage.run(50)
        health.stop()
        assert answers == [200, 200, 200, 0]

    def test_who_shares_an_address_with_one_that_is_left_out_gets_it(self, stage):
        shared = {"external_ips": ("198.51.100.7",)}
        stage.at(0, *three(shop={**STICKY, **shared}))
        stage.at(0, changed(service("web", 2, age="2026-02-01T00:00:00Z", **shared)))
        stage.run(20)
        assert "-d 198.51.100.7/32" in stage.dispatch()
        assert "demo/web:http external IP" in stage.dispatch()


class TestMany:
    COUNT = 60

    def events(self, sticky: int) -> list:
        changes: list = [changed(node())]
        for number in range(self.COUNT):
            extra = STICKY if number % (self.COUNT // sticky) == 0 else {}
            changes += [
                changed(service(f"web-{number}", number + 1, **extra)),
                changed(endpoints(f"web-{number}", number)),
            ]
        return changes

    @pytest.mark.parametrize("sticky", [1, 3, 30])
    def test_what_the_kernel_lacks_is_found_in_a_few_tries(self, stage, sticky):
        """All that need what the kernel lacks are left out after a few tries."""
        stage.at(0, *self.events(sticky))
        stage.run(20)
        assert len(stage.ends()) == self.COUNT - sticky
        assert stage.state.metrics.left_out.value == sticky
        assert stage.tools.refusals <= 8
        assert stage.failed == []

    def test_a_new_service_that_needs_what_lacks_is_not_tried(self, stage):
        """A new service that needs what the kernel lacks is not tried."""
        stage.at(0, *self.events(30))
        refusals = []
        stage.at(5, lambda: refusals.append(stage.tools.refusals))
        stage.at(6, changed(service("late", 200, **STICKY)), changed(endpoints("late", 200)))
        stage.at(7, changed(endpoints("web-1", 222)))
        stage.run(20)
        assert stage.tools.refusals == refusals[0]
        assert stage.state.metrics.left_out.value == 31
        assert "10.244.1.222:8080" in stage.ends()

    @pytest.mark.not_quick
    def test_all_are_tried_again_though_events_take_time(self, stage):
        """All that need what the kernel lacks are tried again though telling of them takes time."""
        stage.event_s = 0.01
        stage.at(0, *self.events(30))
        stage.at(100, lambda: setattr(stage.tools, "refuses", lambda line: False))
        stage.run(RETRY_S + 20)
        assert len(stage.ends()) == self.COUNT

    @pytest.mark.not_quick
    def test_what_there_was_no_time_for_is_served_soon(self, monkeypatch, stage):
        """Who there was no time for is served soon behind other changes."""
        monkeypatch.setattr(refused_services, "MOST_TRIES", 6)
        stage.tools.refuses = lambda line: any(f"-d 10.96.0.{n}/32" in line for n in (7, 23, 55))
        stage.at(0, *self.events(1))
        stage.run(60)
        assert len(stage.ends()) == self.COUNT - 3
        assert {event.about.name for event in stage.events} == {"web-6", "web-22", "web-54"}
        assert stage.state.metrics.left_out.value == 3

    @pytest.mark.parametrize("values", [("10.96.0.7/32",), ("10.96.0.7/32", "10.96.0.23/32", "10.96.0.55/32")])
    def test_services_refused_for_a_value_are_found_one_by_one(self, stage, values):
        """Services that are refused for a value alone are found one by one."""
        stage.tools.refuses = lambda line: any(f"-d {value}" in line for value in values)
        stage.at(0, *self.events(1))
        stage.run(20)
        assert len(stage.ends()) == self.COUNT - len(values)
        assert stage.tools.refusals <= 30
        assert stage.failed == []
