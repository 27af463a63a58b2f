"""What others change in the kernel is found and mended, beside whatever else happens."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.agent.inbox import Wake
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.languages.iptables import script
from rulegen.net import Family
from tests.agent.services.test_loop import NAT, WEB, flush, is_flushed
from tests.agent.stage import Stage, changed, endpoints, node, service
from tests.sizes import examples, sized


class TestOthers:
    def test_foreign_changes_are_repaired_and_logged(self):
        stage = Stage()
        stage.at(0, *WEB)
        stage.at(5, lambda: flush(stage), Wake("check"))
        stage.run(6)
        assert stage.is_right()
        assert stage.written[-1] == pytest.approx(5.2)
        assert stage.state.metrics.drift["rule"] + stage.state.metrics.drift["chain"] > 0
        lines = [line for line in stage.log if "changed by another program" in line]
        assert lines
        assert "mended=True" in lines[0]
        assert "deleted" in lines[0]

    def test_many_foreign_writes_are_looked_at_together(self):
        stage = Stage()
        stage.at(0, *WEB)
        for number in range(15):
            stage.at(5 + number * 0.01, Wake("check"))
        stage.run(6)
        assert stage.checked == [0, 5.2]

    def test_drift_during_a_check_is_seen_the_next_time(self):
        """What others break while it looks is seen the next time though nobody tells."""
        stage = Stage(sync_s=30)
        stage.at(0, *WEB)
        plan = stage.writer.plan

        def planned(compiled, reading=None):
            wanted = plan(compiled, reading)
            if len(stage.writer.plans) == 2:
                flush(stage)
            return wanted

        stage.writer.plan = planned
        stage.at(5, Wake("check"))
        stage.at(30, lambda: seen.append(is_flushed(stage)))
        seen = []
        stage.run(60)
        assert seen == [True]
        assert stage.checked == [0, 5.2, 35.2]
        assert stage.is_right()

    def test_writes_of_others_without_pause_are_checked_with_pauses(self):
        """Others who write rules of their own without pause are not looked at without pause."""
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

    def test_drift_before_a_change_is_seen(self):
        """What others break before a change is seen though only the change was told."""
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

    def test_report_writes_nothing_whatever_comes(self):
        """If asked only to report nothing is written whatever comes."""
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

    def test_report_ends_once_another_proxy_has_written(self):
        """Who only reports is content once another has written what is wanted."""
        stage = Stage(mends=False)
        other = Stage(kernels=stage.writer.kernels)
        for agent in (stage, other):
            agent.at(0, *WEB)
        stage.at(0.5, lambda: counts.append(stage.state.metrics.drift_unmended.value))
        stage.at(1, other.run)
        stage.at(10, Wake("check"))
        counts = []
        stage.run(100)
        assert counts[0] > 0
        assert stage.state.metrics.drift_unmended.value == 0
        assert stage.written == []

    def test_a_requested_change_is_not_logged_as_drift(self):
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
    def test_a_deleted_service_without_comments_is_no_drift(self, monkeypatch, failure):
        """A service that goes is no damage though no comment says whose chains these were."""
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

    def test_what_a_failed_write_left_is_no_drift(self, monkeypatch):
        """What a failed write of ours left is no damage though the change was taken back."""
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

    def test_a_crossed_threshold_is_settled_without_reading(self, monkeypatch):
        """A size that has crossed a threshold is settled at the next period without reading."""
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

    def test_an_entry_of_an_ignored_object_is_logged_once(self):
        stage = Stage()
        warning = "Service demo/web: spec.loadBalancerSourceRanges[0]: not a CIDR"
        name = ObjectName("demo", "web")
        stage.at(1, Changed(k.Service, Decoded(service("web"), "test", (warning,)), name))
        stage.run(120)
        assert sum(warning in line for line in stage.log) == 1

    def test_a_warning_with_a_change_is_reported_without_reading(self):
        """A warning that comes with a change is told though nothing is read."""
        shared = ("198.51.100.7",)
        stage = Stage()
        stage.at(0, *WEB, changed(endpoints("shop", 5)), changed(service("web", external_ips=shared)))
        stage.at(40, changed(service("shop", 2, age="2026-02-01T00:00:00Z", external_ips=shared)))
        stage.run(100)
        assert stage.checked == [0]
        assert len([line for line in stage.log if "198.51.100.7" in line]) == 1

    def test_drift_is_logged_together_with_a_change(self):
        stage = Stage(min_sync_s=3)
        stage.at(0, *WEB, changed(service("shop", 2)), changed(endpoints("shop", 5)))
        stage.at(4, changed(endpoints("shop", 6)))
        stage.at(4.5, lambda: flush(stage, chain="KUBE-MARK-MASQ"), changed(endpoints("shop", 7)), Wake("check"))
        stage.run(5)
        assert stage.is_right()
        lines = [line for line in stage.log if "changed by another program" in line]
        assert len(lines) == 1
        assert "KUBE-MARK-MASQ" in lines[0]
        assert "shop" not in lines[0]

    def test_a_refused_change_on_top_of_drift_mends_all(self):
        """A change on top of damage that the kernel refuses is made by mending all."""
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
@pytest.mark.slow
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


@pytest.mark.slow
def test_others_may_look_at_all_while_it_is_being_changed():
    stage = Stage()
    for number in range(1, 60):
        stage.at(0, changed(service(f"web-{number}", number)), changed(endpoints(f"web-{number}", 1)))
    for number in range(1, sized(quick=40, usual=150, full=150)):
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
