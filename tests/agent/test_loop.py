"""The loop: what it writes, when, and what it never does, whatever fails and whoever else writes."""

from __future__ import annotations

import re
import threading
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.agent.inbox import Wake
from rulegen.agent.pages_server.health import healthz, livez
from rulegen.agent.services.schedule import LONGEST_PAUSE_S
from rulegen.errors import InputError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.languages.iptables import script
from rulegen.net import Family
from tests.agent.stage import Stage, changed, endpoints, listed, node, service
from tests.sizes import examples

WEB = [changed(node()), changed(service("web")), changed(endpoints("web", 1, 2))]
NAT = "nat"


def flush(stage: Stage, family: Family = Family.IPV4, chain: str = "KUBE-SERVICES") -> None:
    """Empty a chain, as another program would."""
    stage.writer.kernels[family].tables[NAT][chain].clear()


def is_flushed(stage: Stage) -> bool:
    return not stage.writer.kernels[Family.IPV4].tables[NAT]["KUBE-SERVICES"]


class TestBeginning:
    def test_nothing_is_read_or_written_before_every_list_has_come(self):
        stage = Stage(has_synced=False)
        stage.at(0, *WEB)
        stage.at(5, lambda: setattr(stage, "has_synced", True))
        stage.run()
        assert stage.checked[0] >= 5
        assert stage.written == [pytest.approx(5, abs=0.1)]
        assert stage.ready == [pytest.approx(105, abs=0.1)]
        assert stage.is_right()

    def test_a_list_that_comes_at_the_last_moment_is_part_of_what_is_written_first(self):
        stage = Stage()
        stage.at(0, *WEB[:2])
        asked = []

        def has_synced() -> bool:
            asked.append(stage.clock.now)
            if len(asked) == 3:
                stage.signals.put(listed(k.EndpointSlice, endpoints("web", 1, 2)))
            return len(asked) >= 3

        stage.loop.has_synced = has_synced
        seen = []
        write = stage.writer.write
        stage.writer.write = lambda plan: (write(plan), seen.append(stage.destinations()))[0]
        stage.run(3)
        assert seen == [["10.244.1.1:8080", "10.244.1.2:8080"]]

    def test_an_api_server_that_has_nothing_to_say_yet_never_empties_a_node(self):
        before = Stage()
        before.at(0, *WEB)
        before.run()
        stage = Stage(kernels=before.writer.kernels, has_synced=False)
        stage.at(0, listed(k.Service), listed(k.Node))
        stage.at(1, Wake("check"))
        stage.run(600)
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert (stage.checked, stage.written, stage.ready) == ([], [], [])
        assert not stage.state.is_alive

    def test_a_node_that_is_as_it_should_be_is_not_written_to(self):
        before = Stage()
        before.at(0, *WEB)
        before.run()
        stage = Stage(kernels=before.writer.kernels)
        stage.at(0, *WEB)
        stage.run(200)
        assert stage.written == []
        assert stage.state.is_alive
        assert len(stage.ready) == 1
        assert stage.log == []

    @pytest.mark.parametrize("comment", ["", '-m comment --comment "by another proxy" '])
    def test_rules_that_another_proxy_has_written_are_taken_over_and_go_with_their_service(self, comment):
        before = Stage()
        before.at(0, *WEB)
        before.run()
        for kernel in before.writer.kernels.values():
            for chains in kernel.tables.values():
                for rules in chains.values():
                    rules[:] = [re.sub(r'-m comment --comment ("[^"]*"|\S+) ', comment, rule) for rule in rules]
        stage = Stage(kernels=before.writer.kernels)
        stage.at(0, *WEB)
        stage.at(1, Gone(k.Service, ObjectName("demo", "web")))
        stage.run(20)
        assert len(stage.written) == 1
        assert stage.log == []
        assert stage.destinations() == []
        assert stage.is_right()

    def test_once_ends_when_all_is_written_however_often_that_fails(self):
        stage = Stage(once=True)
        stage.writer.failures.extend(["lost", "unread", "half"])
        stage.at(0, *WEB)
        assert stage.run(1000) == "once"
        assert stage.is_right()
        assert stage.state.applied == stage.state.desired == 3

    def test_stop_leaves_the_rules(self):
        stage = Stage()
        stage.at(0, *WEB)
        assert stage.run() == "stop"
        assert stage.is_right()
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]

    def test_reload_ends_it_too_and_says_so(self):
        stage = Stage()
        stage.at(1, Wake("reload"))
        assert stage.run() == "reload"

    def test_an_end_is_not_forgotten_over_what_comes_behind_it(self):
        stage = Stage()
        stage.at(1, Wake("stop"), Wake("reload"), Wake("check"))
        assert stage.run() == "stop"

    def test_no_restart_is_asked_for_while_lists_do_not_come(self):
        stage = Stage(has_synced=False)
        stage.at(0, *WEB)
        seen = []
        stage.at(500, lambda: seen.append((stage.state.is_working, stage.state.is_alive)))
        stage.at(501, lambda: setattr(stage, "has_synced", True))
        stage.writer.failures.extend(["lost"] * 20)
        for seconds in (520, 600):
            stage.at(seconds, lambda: seen.append((stage.state.is_working, stage.state.is_alive)))
        stage.run(601)
        assert seen == [(True, False), (True, False), (False, False)]


class TestChanges:
    def test_changes_within_the_least_time_are_written_together(self):
        stage = Stage(min_sync_s=1.0)
        stage.at(0, *WEB)
        for number in range(100):
            stage.at(2 + number * 0.01, changed(endpoints("web", 1, 3 + number % 7)))
        stage.at(2.995, changed(endpoints("web", 9)))
        stage.run()
        later = [time for time in stage.written if time >= 2]
        assert later[0] == 2
        assert len(later) == 2
        assert later[1] == pytest.approx(3, abs=0.01)
        assert stage.destinations() == ["10.244.1.9:8080"]
        assert stage.is_right()

    def test_without_a_least_time_each_is_written_as_it_comes(self):
        stage = Stage()
        stage.at(0, *WEB)
        for number in range(5):
            stage.at(2 + number, changed(endpoints("web", 1, 3 + number)))
        stage.run()
        assert stage.written[-5:] == [2, 3, 4, 5, 6]
        assert stage.checked == [0]

    def test_a_change_that_changes_no_rule_writes_nothing_and_is_applied(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, changed(service("web", age="2026-01-02T00:00:00Z")))
        stage.run(3)
        assert stage.state.metrics.writes.value == 2
        assert stage.state.applied == stage.state.desired == 4

    def test_another_zone_of_the_node_decides_all_services_anew(self):
        stage = Stage()
        stage.at(0, changed(node("zone-a")))
        for number, name in enumerate(("web", "shop"), 1):
            stage.at(0, changed(service(name, number)))
            slices = endpoints(name, number * 10, number * 10 + 1, zones=("zone-a", "zone-b"), node="node2")
            stage.at(0, changed(slices))
        stage.at(1.5, lambda: found.append(stage.destinations()))
        stage.at(2, changed(node("zone-b")))
        found = []
        stage.run(3)
        assert found == [["10.244.1.10:8080", "10.244.1.20:8080"]]
        assert stage.destinations() == ["10.244.1.11:8080", "10.244.1.21:8080"]
        assert stage.is_right()


class TestFailures:
    def test_what_fails_is_tried_again_after_ever_longer_pauses_and_nothing_is_lost(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, lambda: stage.writer.failures.extend(["lost"] * 10))
        stage.at(2, changed(endpoints("web", 3)))
        stage.at(2.5, changed(service("shop", 2)), changed(endpoints("shop", 4)))
        stage.run(1000)
        tried = [time for time in stage.written if time >= 2]
        pauses = [round(later - earlier, 1) for earlier, later in pairwise(tried)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
        assert max(pauses) == LONGEST_PAUSE_S
        assert stage.destinations() == ["10.244.1.3:8080", "10.244.1.4:8080"]
        assert stage.is_right()
        assert stage.state.metrics.sync_failures.value == 10
        assert sum("not written" in line for line in stage.log) == 10
        assert stage.state.last_error == ""

    @pytest.mark.parametrize("first", ["lost", "unread"])
    @pytest.mark.parametrize("event", ["endpoints", "node", "foreign"])
    def test_a_busy_cluster_does_not_make_the_pauses_shorter(self, first, event):
        stage = Stage()
        stage.writer.failures.extend([first] * 4)
        stage.at(0, *WEB)
        for number in range(150):
            signals = {
                "endpoints": changed(endpoints("web", 1 + number % 9)),
                "node": changed(node(f"zone-{number % 2}")),
                "foreign": Wake("check"),
            }
            stage.at(0.1 + number * 0.1, signals[event])
        stage.run(30)
        tried = stage.checked[:5]
        assert [later - earlier for earlier, later in pairwise(tried)] == [
            pytest.approx(pause, abs=0.3) for pause in (1, 2, 4, 8)
        ]
        assert stage.is_right()

    @pytest.mark.parametrize("method", ["plan", "read", "write_update"])
    @pytest.mark.parametrize(
        "error", [KeyError("a fault of ours"), InputError("iptables-save", "line 3: what is that?")]
    )
    def test_a_fault_of_ours_is_told_and_nothing_is_lost(self, method, error):
        stage = Stage()
        stage.at(0, *WEB)
        works = getattr(stage.writer, method)

        def fails(*_: object) -> None:
            setattr(stage.writer, method, works)
            raise error

        stage.at(2, lambda: setattr(stage.writer, method, fails))
        stage.at(3, changed(endpoints("web", 7)), Wake("check"))
        assert stage.run(60) == "stop"
        assert stage.destinations() == ["10.244.1.7:8080"]
        assert stage.is_right()
        assert stage.state.applied == stage.state.desired
        assert len([line for line in stage.log if "not written" in line]) == 1

    def test_what_comes_while_a_tool_hangs_is_not_overlooked(self):
        stage = Stage()
        stage.at(0, *WEB)
        ages = []

        def hang() -> None:
            """As a tool that reads the rules: meanwhile a change comes, and nobody takes it."""
            stage.inbox.on_event(changed(endpoints("web", 7)))
            stage.clock.now += 61
            ages.append((stage.state.age_s, stage.state.is_working))

        read = stage.writer.read
        stage.at(5, lambda: setattr(stage.writer, "read", lambda: (read(), hang())[0]), Wake("check"))
        stage.at(5.1, lambda: stage.at(70, lambda: setattr(stage.writer, "read", read)))
        stage.run(100)
        assert ages[0] == (pytest.approx(61), False)
        assert stage.state.age_s == 0
        assert stage.is_right()

    def test_a_write_that_was_half_done_is_completed(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, lambda: stage.writer.failures.append("half"))
        stage.at(2, Gone(k.Service, ObjectName("demo", "web")))
        stage.run(5)
        assert stage.destinations() == []
        assert stage.is_right()
        assert not [line for line in stage.log if "changed by another program" in line]

    def test_age_and_generation_tell_the_truth_while_it_fails(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, lambda: stage.writer.failures.extend(["lost"] * 9))
        stage.at(2, changed(endpoints("web", 3)))
        found = []
        for seconds in (1, 3, 50, 63, 400):
            stage.at(seconds, lambda: found.append((round(stage.state.age_s), stage.state.is_alive)))
        stage.run(500)
        assert found == [(0, True), (1, True), (48, True), (61, False), (0, True)]
        assert stage.state.metrics.programming.last[-1] > 60


class TestOthers:
    def test_what_others_break_is_mended_and_told(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(5, lambda: flush(stage), Wake("check"))
        stage.run(6)
        assert stage.is_right()
        assert stage.written[-1] == pytest.approx(5.2)
        assert stage.state.metrics.drift["rule"] + stage.state.metrics.drift["chain"] > 0
        told = [line for line in stage.log if "changed by another program" in line]
        assert told
        assert "mended=True" in told[0]
        assert "deleted" in told[0]

    def test_many_foreign_writes_are_looked_at_together(self):
        stage = Stage()
        stage.at(0, *WEB)
        for number in range(15):
            stage.at(5 + number * 0.01, Wake("check"))
        stage.run(6)
        assert stage.checked == [0, 5.2]

    def test_what_others_break_while_it_looks_is_seen_the_next_time_though_nobody_tells(self):
        stage = Stage(sync_s=30)
        stage.at(0, *WEB)
        plan = stage.writer.plan

        def planned(compiled, reading=None):
            found = plan(compiled, reading)
            if len(stage.writer.plans) == 2:
                flush(stage)
            return found

        stage.writer.plan = planned
        stage.at(5, Wake("check"))
        stage.at(30, lambda: seen.append(is_flushed(stage)))
        seen = []
        stage.run(60)
        assert seen == [True]
        assert stage.checked == [0, 5.2, 35.2]
        assert stage.is_right()

    def test_others_who_write_rules_of_their_own_without_pause_are_not_looked_at_without_pause(self):
        stage = Stage(sync_s=1000)
        stage.at(0, *WEB)
        read = stage.writer.read

        def slow():
            stage.clock.now += 2
            return read()

        stage.writer.read = slow
        for number in range(600):
            stage.at(10 + number * 0.1, Wake("check"))
        stage.at(40, lambda: flush(stage))
        stage.run(70)
        later = [time for time in stage.checked if time > 10]
        assert 5 <= len(later) <= 9
        assert stage.is_right()

    def test_without_a_word_from_the_kernel_it_looks_by_itself(self):
        stage = Stage(sync_s=30)
        stage.at(0, *WEB)
        stage.at(5, lambda: flush(stage))
        stage.run(31)
        assert stage.checked == [0, 30]
        assert stage.is_right()

    def test_what_others_break_before_a_change_is_seen_though_only_the_change_was_told(self):
        stage = Stage(sync_s=30)
        stage.at(0, *WEB)
        stage.at(5, lambda: flush(stage, chain="KUBE-MARK-MASQ"))
        stage.at(6, changed(endpoints("web", 3)))
        stage.run(61)
        assert stage.is_right()

    def test_where_nobody_wrote_nothing_is_read(self):
        stage = Stage(sync_s=30)
        stage.at(0, *WEB)
        stage.at(6, changed(endpoints("web", 3)))
        stage.run(200)
        assert stage.checked == [0]
        assert stage.is_right()

    def test_if_asked_only_to_report_nothing_is_written_whatever_comes(self):
        before = Stage()
        before.at(0, *WEB)
        before.run()
        stage = Stage(kernels=before.writer.kernels, mends=False)
        stage.at(0, *WEB)
        stage.at(5, lambda: flush(stage), Wake("check"))
        stage.at(8, changed(endpoints("web", 3)))
        stage.at(9, changed(node("zone-b")))
        stage.at(20, Gone(k.Service, ObjectName("demo", "web")))
        stage.run(100)
        assert is_flushed(stage)
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert stage.written == []
        assert stage.state.metrics.drift_unmended.value > 0
        assert any("mended=False" in line for line in stage.log)

    def test_who_only_reports_is_content_once_another_has_written_what_is_wanted(self):
        stage = Stage(mends=False)
        other = Stage(kernels=stage.writer.kernels)
        for one in (stage, other):
            one.at(0, *WEB)
        stage.at(0.5, lambda: told.append(stage.state.metrics.drift_unmended.value))
        stage.at(1, other.run)
        stage.at(10, Wake("check"))
        told = []
        stage.run(100)
        assert told[0] > 0
        assert stage.state.metrics.drift_unmended.value == 0
        assert stage.written == []

    def test_what_a_change_asks_for_is_not_told_as_damage(self):
        """Nor what it comes to for another Service, which gets an address back that it had to leave to the older."""
        shared = ("198.51.100.7",)
        stage = Stage(min_sync_s=3)
        stage.at(0, *WEB, changed(endpoints("shop", 5)))
        stage.at(0, changed(service("web", external_ips=shared)))
        stage.at(0, changed(service("shop", 2, age="2026-02-01T00:00:00Z", external_ips=shared)))
        stage.at(2, changed(endpoints("web", 7)))
        stage.at(2.1, Gone(k.Service, ObjectName("demo", "web")), Wake("check"))
        stage.run(10)
        assert 2.3 in stage.checked
        assert stage.is_right()
        assert not [line for line in stage.log if "changed by another program" in line]

    @pytest.mark.parametrize("failure", [None, "half", "lost"])
    def test_a_service_that_goes_is_no_damage_though_no_comment_says_whose_chains_these_were(
        self, monkeypatch, failure
    ):
        monkeypatch.setattr(script, "LARGE", 0)
        monkeypatch.setattr(script, "VERY_LARGE", 0)
        stage = Stage(min_sync_s=3)
        stage.at(0, *WEB, changed(service("shop", 2)), changed(endpoints("shop", 5)))
        if failure:
            stage.at(4, lambda: stage.writer.failures.append(failure))
        stage.at(4, Gone(k.Service, ObjectName("demo", "shop")))
        stage.at(4.5, Gone(k.Service, ObjectName("demo", "web")), Wake("check"))
        stage.run(10)
        assert stage.destinations() == []
        assert stage.is_right()
        assert not [line for line in stage.log if "changed by another program" in line]

    def test_what_a_failed_write_of_ours_left_is_no_damage_though_the_change_was_taken_back(self, monkeypatch):
        monkeypatch.setattr(script, "LARGE", 0)
        monkeypatch.setattr(script, "VERY_LARGE", 0)
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(4, lambda: stage.writer.failures.append("half"))
        stage.at(4, changed(service("shop", 2)), changed(endpoints("shop", 5)))
        stage.at(4.5, Gone(k.Service, ObjectName("demo", "shop")))
        stage.run(10)
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert stage.is_right()
        assert not [line for line in stage.log if "changed by another program" in line]

    def test_a_size_that_has_crossed_a_threshold_is_settled_at_the_next_period_without_reading(self, monkeypatch):
        monkeypatch.setattr(script, "LARGE", 0)
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, lambda: monkeypatch.setattr(script, "VERY_LARGE", 0))
        stage.at(3, Gone(k.Service, ObjectName("demo", "web")))
        stage.at(40, *WEB)
        stage.at(70, Gone(k.Service, ObjectName("demo", "web")))
        stage.run(100)
        assert stage.checked == [0]
        assert stage.is_right()
        assert "not written" not in stage.text.getvalue()

    def test_an_entry_of_an_object_that_is_ignored_is_told_once(self):
        stage = Stage()
        warning = "Service demo/web: spec.loadBalancerSourceRanges[0]: not a CIDR"
        name = ObjectName("demo", "web")
        stage.at(1, Changed(k.Service, Decoded(service("web"), "test", (warning,)), name))
        stage.run(120)
        assert sum(warning in line for line in stage.log) == 1

    def test_a_warning_that_comes_with_a_change_is_told_though_nothing_is_read(self):
        shared = ("198.51.100.7",)
        stage = Stage()
        stage.at(0, *WEB, changed(endpoints("shop", 5)), changed(service("web", external_ips=shared)))
        stage.at(40, changed(service("shop", 2, age="2026-02-01T00:00:00Z", external_ips=shared)))
        stage.run(100)
        assert stage.checked == [0]
        assert len([line for line in stage.log if "198.51.100.7" in line]) == 1

    def test_damage_is_told_though_a_change_comes_with_it(self):
        stage = Stage(min_sync_s=3)
        stage.at(0, *WEB, changed(service("shop", 2)), changed(endpoints("shop", 5)))
        stage.at(4, changed(endpoints("shop", 6)))
        stage.at(4.5, lambda: flush(stage, chain="KUBE-MARK-MASQ"), changed(endpoints("shop", 7)), Wake("check"))
        stage.run(5)
        assert stage.is_right()
        told = [line for line in stage.log if "changed by another program" in line]
        assert len(told) == 1
        assert "KUBE-MARK-MASQ" in told[0]
        assert "shop" not in told[0]

    def test_a_change_on_top_of_damage_that_the_kernel_refuses_is_made_by_mending_all(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(5, lambda: [chain.clear() for chain in stage.writer.kernels[Family.IPV4].tables[NAT].values()])
        stage.at(5, Gone(k.Service, ObjectName("demo", "web")))
        stage.run(8)
        assert stage.is_right()


NAMES = ("web", "shop")
happenings = st.lists(
    st.one_of(
        st.builds(lambda n, at: changed(service(n, at)), st.sampled_from(NAMES), st.integers(1, 3)),
        st.builds(
            lambda n, *at: changed(endpoints(n, *at)), st.sampled_from(NAMES), st.integers(1, 2), st.integers(3, 4)
        ),
        st.builds(lambda n: Gone(k.Service, ObjectName("demo", n)), st.sampled_from(NAMES)),
        st.builds(lambda z: changed(node(z)), st.sampled_from(("zone-a", "zone-b"))),
        st.sampled_from(("lost", "half", "unread", "damage", "check")),
    ),
    max_size=12,
)


@settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(happenings, st.sampled_from((0.0, 1.0)), st.sampled_from((0.05, 0.7)), st.randoms(use_true_random=False))
def test_whatever_happens_in_the_end_all_is_right(happenings, min_sync_s, pace_s, chance):
    stage = Stage(min_sync_s=min_sync_s, sync_s=200.0)
    stage.at(0, *WEB)

    def damage() -> None:
        nat = stage.writer.kernels[chance.choice(list(Family))].tables[NAT]
        nat[chance.choice(sorted(chain for chain in nat if chain.startswith("KUBE-") or not nat[chain]))].clear()

    for number, happening in enumerate(happenings):
        match happening:
            case "lost" | "half" | "unread":
                stage.at(1 + number * pace_s, lambda what=happening: stage.writer.failures.append(what))
            case "damage":
                stage.at(1 + number * pace_s, damage)
            case "check":
                stage.at(1 + number * pace_s, Wake("check"))
            case _:
                stage.at(1 + number * pace_s, happening)
    stage.run(1000)
    assert stage.is_right()
    assert stage.state.applied == stage.state.desired
    assert stage.state.age_s == 0


def test_others_may_look_at_all_while_it_is_being_changed():
    stage = Stage()
    for number in range(1, 60):
        stage.at(0, changed(service(f"web-{number}", number)), changed(endpoints(f"web-{number}", 1)))
    for number in range(1, 150):
        at = 1 + number % 59
        stage.at(1 + number * 0.01, changed(service(f"new-{number}", at, age="2026-03-01T00:00:00Z")))
    failures, is_over = [], threading.Event()

    def look() -> None:
        while not is_over.is_set():
            try:
                compiled = stage.desired.compiled()
                if compiled is not None:
                    assert compiled.model.services.keys()
                    assert compiled.model.warnings is not None
                stage.cluster.uid_of(ObjectName("demo", "web-1"))
                stage.node.reference()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told below
                failures.append(repr(error))
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        stage.run(6)
    finally:
        is_over.set()
        looking.join()
    assert failures == []


class TestUnknownNode:
    """The cluster does not know this node: all endpoints would count as those of others."""

    def test_nothing_is_written_before_the_node_is_there_and_that_is_told_once(self):
        stage = Stage(needs_node=True, node_names=lambda: ["node2", "db-1"])
        stage.at(0, *WEB[1:])
        stage.at(20, changed(service("shop", 2)))
        stage.at(200, lambda: health.append((healthz(stage.state).status, livez(stage.state).status)))
        stage.at(300, changed(node()))
        health = []
        stage.run(400)
        assert stage.written == [pytest.approx(300, abs=0.1)]
        assert stage.is_right()
        waiting = [line for line in stage.log if "waiting for the Node" in line]
        assert len(waiting) == 1
        assert "there is no Node node1; did you mean node2?" in waiting[0]
        assert health == [(503, 200)]  # no traffic comes here, and no restart would help

    def test_what_it_waits_for_stands_in_health(self):
        stage = Stage(needs_node=True)
        stage.at(0, *WEB[1:])
        stage.run(5)
        assert (stage.checked, stage.written, stage.ready) == ([], [], [])
        assert "there is no Node node1" in stage.state.last_error
        stage.at(6, changed(node()))
        stage.run(8)
        assert stage.state.last_error == ""

    def test_the_rules_that_are_there_stay_meanwhile(self):
        before = Stage()
        before.at(0, *WEB)
        before.run()
        stage = Stage(kernels=before.writer.kernels, needs_node=True)
        stage.at(0, Wake("check"))
        stage.run(600)
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]
        assert stage.written == []

    def test_a_node_that_goes_later_does_not_stop_it(self):
        stage = Stage(needs_node=True)
        stage.at(0, *WEB)
        stage.at(5, Gone(k.Node, ObjectName("", "node1")))
        stage.at(10, changed(service("shop", 2)), changed(endpoints("shop", 3)))
        stage.run(20)
        assert "10.244.1.3:8080" in stage.destinations()

    def test_who_wants_it_need_not_wait(self):
        stage = Stage(needs_node=False)
        stage.at(0, *WEB[1:])
        stage.run(5)
        assert stage.destinations() == ["10.244.1.1:8080", "10.244.1.2:8080"]

    def test_a_host_that_gets_its_name_late_begins_anew_as_that_node(self):
        """Many hosts are called localhost until their network is up."""
        names = {"host": "node1"}
        stage = Stage(needs_node=True, host_name=lambda: names["host"])
        stage.at(0, *WEB[1:])
        stage.at(30, lambda: names.update(host="web-1"))
        assert stage.run(60) == "reload"
        assert 30 <= stage.clock.now - 100 <= 40
        assert stage.written == []

    def test_where_nothing_can_begin_under_a_new_name_that_is_tried_once(self):
        stage = Stage(needs_node=True, host_name=lambda: "web_1")
        stage.at(0, *WEB[1:])
        assert stage.run(60) == "reload"
        assert stage.loop.run() == "stop"

    def test_a_known_node_keeps_its_name_and_says_so_once(self):
        names = {"host": "node1"}
        stage = Stage(needs_node=True, host_name=lambda: names["host"])
        stage.at(0, *WEB)
        stage.at(30, lambda: names.update(host="web-1"))
        assert stage.run(200) == "stop"
        assert len([line for line in stage.log if "the node name stays" in line]) == 1
        assert stage.is_right()
