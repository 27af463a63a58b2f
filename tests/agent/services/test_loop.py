"""The loop: what it writes, when, and what it never does, whatever fails and whoever else writes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from rulegen.agent.inbox import Wake
from rulegen.agent.retry import LONGEST_PAUSE_S
from rulegen.errors import InputError
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from rulegen.net import Family
from tests.agent.stage import Stage, changed, endpoints, listed, node, service

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

    def test_a_list_at_the_last_moment_is_part_of_the_first_write(self):
        """A list that comes at the last moment is part of what is written first."""
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

    def test_a_silent_api_server_never_empties_a_node(self):
        """An API server that has nothing to say yet never empties a node."""
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
    def test_rules_of_another_proxy_are_taken_over(self, comment):
        """Rules that another proxy has written are taken over and go with their service."""
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

    def test_a_change_without_other_rules_writes_nothing(self):
        """A change that changes no rule writes nothing and is applied."""
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
        stage.at(1.5, lambda: seen.append(stage.destinations()))
        stage.at(2, changed(node("zone-b")))
        seen = []
        stage.run(3)
        assert seen == [["10.244.1.10:8080", "10.244.1.20:8080"]]
        assert stage.destinations() == ["10.244.1.11:8080", "10.244.1.21:8080"]
        assert stage.is_right()


class TestFailures:
    def test_failures_are_tried_again_after_ever_longer_pauses(self):
        """What fails is tried again after ever longer pauses and nothing is lost."""
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(2, lambda: stage.writer.failures.extend(["lost"] * 10))
        stage.at(2, changed(endpoints("web", 3)))
        stage.at(2.5, changed(service("shop", 2)), changed(endpoints("shop", 4)))
        stage.run(1000)
        tried = [time for time in stage.written if time >= 2]
        pauses = [round(later - earlier, 1) for earlier, later in pairwise(tried)]
        assert pauses == [1, 2, 4, 8, 16, 20, 20, 20, 20, 20]
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
    def test_an_internal_error_is_logged_and_nothing_is_lost(self, method, error):
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
        seen = []
        for seconds in (1, 3, 50, 63, 400):
            stage.at(seconds, lambda: seen.append((round(stage.state.age_s), stage.state.is_alive)))
        stage.run(500)
        assert seen == [(0, True), (1, True), (48, True), (61, False), (0, True)]
        assert stage.state.metrics.programming.last[-1] > 60
