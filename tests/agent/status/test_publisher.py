"""Addresses in the status of Ingresses and Services: those of all nodes that serve, written by one of them."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter

import pytest

from rulegen.agent.status.ingresses import IngressPublication
from rulegen.apiserver.objects import ApiObjects
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.watch import Watch
from rulegen.apiserver.watching.outage import OutageNotice
from rulegen.kube.objects.names import ObjectName
from tests.agent.talking import NAMESPACE, Place, ingress
from tests.apiserver.watching import fast, soon
from tests.fakes.faults import Fault
from tests.sizes import sized

A, B, C = "203.0.113.1", "203.0.113.2", "2001:db8::3"
WEB = ObjectName("shop", "web")


def status_writes(place: Place) -> int:
    return sum(resource.endswith("/status") for _, _, resource in place.api.done)


class TestIngresses:
    @pytest.mark.not_quick
    def test_all_nodes_that_serve_are_published_by_one(self, place):
        place.api.put("ingresses", ingress("web"), ingress("blog"))
        nodes = [place.node("a", A), place.node("b", B), place.node("c", C)]
        for node in nodes + nodes:
            node.turn()
        assert place.published("ingresses", "web") == place.published("ingresses", "blog") == [C, A, B]
        assert [publisher.members.is_leading for publisher in nodes] == [True, False, False]

    @pytest.mark.not_quick
    def test_what_is_published_already_is_not_written_again(self, place):
        place.api.put("ingresses", ingress("web"))
        node = place.node("a", A)
        node.turn()
        version = place.api.kept("ingresses")["shop", "web"]["metadata"]["resourceVersion"]
        for _ in range(10):
            place.clock.now += 5
            node.turn()
        assert place.api.kept("ingresses")["shop", "web"]["metadata"]["resourceVersion"] == version
        assert status_writes(place) == 1

    def test_only_the_status_is_changed(self, place):
        before = ingress("web")
        place.api.put("ingresses", before)
        place.node("a", A).turn()
        after = place.api.kept("ingresses")["shop", "web"]
        assert after["spec"] == before["spec"]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert {resource for verb, _, resource in place.api.done if verb == "patch"} == {"ingresses/status"}

    def test_a_node_that_ends_takes_its_addresses_out(self, place):
        """Whoever ends takes its addresses out and the last one all."""
        place.api.put("ingresses", ingress("web"))
        first, second = place.node("a", A), place.node("b", B)
        for node in (first, second, first):
            node.turn()
        assert place.published("ingresses", "web") == [A, B]
        first.stop(for_good=True)
        assert place.published("ingresses", "web") == [B]
        place.clock.now += 10
        second.turn()  # leads as soon as it looks, as the other one resigned
        assert second.members.is_leading
        second.stop(for_good=True)
        assert place.published("ingresses", "web") == []

    def test_who_does_not_lead_ends_too(self, place):
        place.api.put("ingresses", ingress("web"))
        first, second = place.node("a", A), place.node("b", B)
        for node in (first, second, first):
            node.turn()
        second.stop(for_good=True)
        place.clock.now += 5
        first.turn()
        assert place.published("ingresses", "web") == [A]

    @pytest.mark.parametrize(("for_good", "withdraws"), [(False, True), (True, False)])
    def test_a_new_beginning_changes_nothing(self, place, for_good, withdraws):
        place.api.put("ingresses", ingress("web"))
        node = place.node("a", A, withdraws=withdraws)
        node.turn()
        node.stop(for_good=for_good)
        assert place.published("ingresses", "web") == [A]
        again = place.node("a", A)
        again.turn()
        assert again.members.is_leading
        assert status_writes(place) == 1

    def test_who_has_never_served_takes_nothing_out(self, place):
        place.api.put("ingresses", ingress("web"))
        place.node("a", A).turn()
        place.clock.now += 10_000
        place.node("b", B).stop(for_good=True)
        assert place.published("ingresses", "web") == [A]

    def test_a_dead_leader_is_followed_and_taken_out(self, place):
        """A leader that dies is followed by another which takes it out."""
        place.api.put("ingresses", ingress("web"))
        first, second = place.node("a", A), place.node("b", B)
        for node in (first, second, first):
            node.turn()
        took_s = 0
        while place.published("ingresses", "web") != [B]:
            place.clock.now += 5
            took_s += 5
            second.turn()
            assert took_s <= 40
        assert took_s >= 30  # as long as its Lease held

    @pytest.mark.not_quick
    @pytest.mark.parametrize("killed", [["a"], ["b"], ["a", "b"], ["b", "c"], ["a", "b", "c"]], ids="".join)
    @pytest.mark.parametrize("phase_s", sized(quick=[4], usual=[0, 4, 8], full=range(10)))
    def test_who_is_killed_is_taken_out_when_its_lease_is_over(self, place, killed, phase_s):
        """The leader is `a`; clients are sent to a dead node for 40 s at most, whoever dies, and at whatever moment."""
        place.api.put("ingresses", ingress("web"))
        at = {name: f"203.0.113.{number}" for number, name in enumerate("abcd", 1)}
        nodes = {name: place.node(name, address) for name, address in at.items()}

        def pass_time(seconds: int) -> None:
            for _ in range(seconds):
                place.clock.now += 1
                for number, node in enumerate(nodes.values()):  # each every five seconds, not all at once
                    if round(place.clock.now) % 5 == number:
                        node.turn()

        for node in nodes.values():
            node.turn()
        pass_time(60 + phase_s)
        assert nodes["a"].members.is_leading
        assert place.published("ingresses", "web") == sorted(at.values())
        for name in killed:
            del nodes[name]
        living = sorted(at[name] for name in nodes)
        took_s = 0
        while (published := place.published("ingresses", "web")) != living:
            assert set(published) >= set(living), "nobody who lives is taken out"
            pass_time(1)
            took_s += 1
            assert took_s <= 40
        assert took_s >= 15  # no sooner than a node that only lost its connection for a moment
        pass_time(60)
        assert place.published("ingresses", "web") == living

    @pytest.mark.not_quick
    def test_a_leader_takes_out_nobody_it_has_not_looked_at(self, place):
        """A leader takes nobody out whom it did not look at for long."""
        place.api.put("ingresses", ingress("web"))
        first, second = place.node("a", A), place.node("b", B)
        for node in (first, second, first):
            node.turn()
        for _ in range(8):  # the leader is suspended with its machine
            place.clock.now += 5
            second.turn()
        for _ in range(20):
            for node in (first, second):
                node.turn()
            assert B in place.published("ingresses", "web")
            place.clock.now += 5
        assert place.published("ingresses", "web") == [A, B]

    def test_a_node_that_returns_does_not_bring_back_the_dead(self, place):
        """Who serves again after a long time does not bring back the dead."""
        place.api.put("ingresses", ingress("web"))
        here = place.node("b", B)
        here.turn()
        here.addresses = lambda: None
        here.turn()
        place.clock.now += 500
        place.node("a", A).turn()
        place.clock.now += 500
        here.addresses = lambda: (B,)
        here.turn()
        assert place.published("ingresses", "web") == [B]

    def test_the_dead_of_long_ago_are_not_published(self, place):
        place.api.put("ingresses", ingress("web"))
        place.node("a", A).turn()
        place.clock.now += 10_000
        place.node("b", B).turn()
        assert place.published("ingresses", "web") == [B]

    @pytest.mark.not_quick
    def test_a_server_that_was_away_for_long_takes_nobody_out(self, place):
        place.api.put("ingresses", ingress("web"))
        nodes = [place.node("a", A), place.node("b", B)]
        for node in nodes + nodes:
            node.turn()
        place.api.go_away()
        for _ in range(40):
            place.clock.now += 5
            for node in nodes:
                node.guarded_turn()
        place.api.come_back()
        before = status_writes(place)
        for _ in range(6):
            for node in nodes:
                node.guarded_turn()
            assert place.published("ingresses", "web") == [A, B]
            place.clock.now += 5
        assert status_writes(place) == before

    def test_two_that_begin_at_once_do_not_both_lead(self, place):
        place.api.put("ingresses", ingress("web"))
        nodes = [place.node(f"n{number}", f"203.0.113.{number}") for number in range(1, 6)]
        for node in nodes:
            node.members.join(node.addresses())
        place.api.fail("leases", None, Fault.status(409, "already exists"))
        assert [node.members.lead() for node in nodes].count(True) == 1

    @pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
    def test_times_in_leases_are_those_of_the_server(self, place, ahead_s):
        """So a node with a wrong clock is as dead, and as alive, as any other."""
        place.api.put("ingresses", ingress("web"))
        place.api.ahead_s = ahead_s
        node = place.node("a", A)
        node.members.now = node.members.objects.now
        node.turn()  # the first answer tells the time
        place.clock.now += 10
        node.turn()
        lease = place.api.kept("leases")[NAMESPACE, "rulegen-ingress-rulegen.node.a"]
        renewed = dt.datetime.fromisoformat(lease["spec"]["renewTime"])
        there = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead_s)
        assert abs((there - renewed).total_seconds()) < 5

    @pytest.mark.not_quick
    def test_clocks_of_nodes_may_differ(self, place):
        place.api.put("ingresses", ingress("web"))
        late, here = place.node("a", A), place.node("b", B)
        real = late.members.now
        late.members.now = lambda: real().replace(year=2020)
        for _ in range(20):
            for node in (here, late):
                node.turn()
            place.clock.now += 5
        assert place.published("ingresses", "web") == [A, B]

    def test_what_is_not_served_is_not_published(self, place):
        place.api.put("ingresses", ingress("web"), ingress("bad"), ingress("other"))
        served = {WEB: True, ObjectName("shop", "bad"): True}
        node = place.node("a", A, served=lambda: served)
        node.turn()
        assert (place.published("ingresses", "bad"), place.published("ingresses", "other")) == ([A], [])
        served[ObjectName("shop", "bad")] = False
        node.turn()
        assert (place.published("ingresses", "bad"), place.published("ingresses", "web")) == ([], [A])

    def test_an_ingress_that_is_no_longer_ours_is_let_go_of_once(self, place):
        place.api.put("ingresses", ingress("web"))
        served = {WEB: True}
        node = place.node("a", A, served=lambda: served)
        node.turn()
        del served[WEB]
        node.turn()
        assert place.published("ingresses", "web") == []
        others = {**ingress("web"), "status": {"loadBalancer": {"ingress": [{"ip": A}]}}}
        place.api.put("ingresses", others)
        node.turn()
        assert place.published("ingresses", "web") == [A]  # somebody else's, who happens to say the same

    def test_a_status_that_somebody_changes_is_mended(self, place):
        place.api.put("ingresses", ingress("web"))
        node = place.node("a", A)
        node.turn()
        place.api.put("ingresses", {**ingress("web"), "status": {"loadBalancer": {"ingress": [{"hostname": "x.y"}]}}})
        node.turn()
        assert place.published("ingresses", "web") == [A]

    def test_a_recreated_ingress_is_not_taken_for_the_old_one(self, place):
        """An ingress made anew meanwhile is not confused with the old one."""
        place.api.put("ingresses", ingress("web", uid="old"))
        stale = place.ingresses()
        place.api.put("ingresses", ingress("web", uid="new"))
        node = place.node("a", A, publication=IngressPublication(lambda: stale, lambda: {WEB: True}))
        node.turn()
        assert place.published("ingresses", "web") == []

    def test_nothing_is_published_before_it_is_known_what_is_served(self, place):
        place.api.put("ingresses", ingress("web"))
        place.node("a", A, served=lambda: None).turn()
        assert place.published("ingresses", "web") == []

    def test_names_and_addresses_of_both_families(self, place):
        place.api.put("ingresses", ingress("web"))
        place.node("a", "lb.example", A, C).turn()
        assert place.published("ingresses", "web") == [C, A, "lb.example"]

    def test_a_node_that_serves_nothing_takes_itself_out(self, place):
        place.api.put("ingresses", ingress("web"))
        first, second = place.node("a", A), place.node("b", B)
        for node in (first, second, first):
            node.turn()
        second.addresses = lambda: None
        for node in (second, first):
            node.turn()
        assert place.published("ingresses", "web") == [A]


class TestLeases:
    def test_a_lease_belongs_to_its_node_and_tells_who_holds_it(self, place):
        place.node("a", A, B).turn()
        lease = place.api.kept("leases")[NAMESPACE, "rulegen-ingress-rulegen.node.a"]
        assert lease["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid-of-a"}
        ]
        assert lease["metadata"]["annotations"] == {"rulegen.io/addresses": f"{A},{B}"}
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]) == ("a", 30)

    @pytest.mark.not_quick
    def test_it_is_renewed_now_and_then(self, place):
        node = place.node("a", A)
        for _ in range(60):
            node.turn()
            place.clock.now += 5
        asked = Counter(verb for verb, _, noun in place.api.done if noun == "leases")
        assert 58 <= asked["update"] <= 62  # each of the two leases every ten seconds
        assert (asked["create"], asked["get"]) == (2, 31)  # its own is known

    def test_one_that_is_taken_away_is_made_again(self, place):
        node = place.node("a", A)
        node.turn()
        place.api.delete("leases", NAMESPACE, "rulegen-ingress-rulegen.node.a")
        place.clock.now += 10
        node.turn()
        assert list(node.members.alive()) == ["a"]

    def test_one_that_somebody_else_wrote_is_written_over(self, place):
        node = place.node("a", A)
        node.turn()
        kept = place.api.kept("leases")[NAMESPACE, "rulegen-ingress-rulegen.node.a"]
        place.api.put("leases", {**kept, "spec": {"holderIdentity": "x"}})
        place.clock.now += 10
        node.turn()
        assert list(node.members.alive()) == ["a"]

    def test_classes_do_not_mix(self, place):
        place.api.put("ingresses", ingress("web"))
        place.node("b", B, group="ingress-other").turn()
        place.node("a", A).turn()
        assert place.published("ingresses", "web") == [A]

    @pytest.mark.parametrize("group", ["ingress-UPPER_case", "ingress-" + "x" * 250, "ingress-\u00e9/../x"])
    def test_any_name_of_a_class_makes_a_lease(self, place, group):
        node = place.node("a", A, group=group)
        node.turn()
        assert list(node.members.alive()) == ["a"]

    @pytest.mark.parametrize(
        "change",
        [
            {"spec": None},
            {"spec": {"holderIdentity": 5}},
            {"spec": {"holderIdentity": "x", "leaseDurationSeconds": "long", "renewTime": 7}},
            {"spec": {"holderIdentity": "../x", "leaseDurationSeconds": 10**12, "renewTime": "2026-01-02T03:04:05Z"}},
            {"spec": {"holderIdentity": "x", "leaseDurationSeconds": 5, "renewTime": "9999-99-99T99:99:99.000000Z"}},
            {"metadata": {"annotations": {"rulegen.io/addresses": "\x00,<script>,$(id),999.1.1.1,,,"}}},
        ],
        ids=range(6),
    )
    def test_whatever_a_lease_holds_nothing_of_it_is_published(self, place, change):
        place.api.put("ingresses", ingress("web"))
        place.node("evil", B).members.join((B,))
        name = "rulegen-ingress-rulegen.node.evil"
        kept = place.api.kept("leases")[NAMESPACE, name]
        spec = change.get("spec", kept["spec"])
        place.api.put(
            "leases", {**kept, "metadata": {**kept["metadata"], **change.get("metadata", {})}, "spec": spec or {}}
        )
        place.node("a", A).turn()
        assert place.published("ingresses", "web") == [A]


class TestTrouble:
    def test_conflicts_are_tried_again(self, place):
        place.api.put("ingresses", ingress("web"))
        place.api.fail("ingresses", Fault.status(409, "the object has been modified"))
        place.node("a", A).turn()
        assert place.published("ingresses", "web") == [A]

    def test_a_refused_object_keeps_no_other_from_being_written(self, place):
        """An object that a server refuses keeps no other from being written."""
        place.api.put("ingresses", ingress("a"), ingress("b"))
        place.api.fail("ingresses", Fault.status(422, "no"))
        node = place.node("a", A)
        with pytest.raises(ApiError):
            node.turn()
        assert sorted([place.published("ingresses", "a"), place.published("ingresses", "b")]) == [[], [A]]
        node.turn()
        assert place.published("ingresses", "a") == [A]

    def test_one_failure_is_logged_once_and_403_ends_requests(self, place):
        place.api.put("ingresses", ingress("web"))
        place.api.allows = lambda done: done[2] != "leases"
        node = place.node("a", A)
        for _ in range(20):
            node.guarded_turn()
            place.clock.now += 5
        assert node.log.out.getvalue().count("not published") == 1
        assert len(place.api.requests) == 1

    def test_an_outage_is_reported_once_for_all(self, place):
        """What is about the server is said once for all and it is back with the others."""
        place.api.put("ingresses", ingress("web"))
        notices: list[OutageNotice] = []
        timing = fast(list_silence=20.0, watch_silence=60.0)
        watch = Watch(lambda _: None, kubeconfig=place.kubeconfig, notice=notices.append, timing=timing)
        node = place.node("a", A)
        node.members.objects = ApiObjects(watch.link)
        node.server = watch
        node.period_s = 60.0
        with watch:
            assert soon(lambda: watch.has_synced)
            place.api.go_away()
            node.start()
            assert soon(lambda: notices)
            assert soon(lambda: node.state.metrics.publish_failures.value >= 1)
            place.api.come_back()
            assert soon(lambda: place.published("ingresses", "web") == [A])  # long before its period
            assert soon(lambda: [notice.is_well for notice in notices] == [False, True]), notices
            node.stop(for_good=False)
        assert "not published" not in node.log.out.getvalue()

    @pytest.mark.not_quick
    def test_whatever_goes_wrong_in_the_end_it_is_as_it_should_be(self, place):
        chance = random.Random(7)
        place.api.put("ingresses", *(ingress(f"i{number}") for number in range(5)))
        nodes = [place.node(name, address) for name, address in (("a", A), ("b", B), ("c", C))]
        for _ in range(60):
            noun = chance.choice(["leases", "ingresses"])
            place.api.fail(noun, *[chance.choice([Fault.status(500), Fault.status(409), Fault.hang_up(), None])] * 2)
            chance.choice(nodes).guarded_turn()
            place.clock.now += chance.choice([0, 1, 5, 20])
        place.api.calm_down()
        for _ in range(20):
            for node in nodes:
                node.guarded_turn()
            place.clock.now += 5
        assert {tuple(place.published("ingresses", f"i{number}")) for number in range(5)} == {(C, A, B)}
        assert sum(node.members.is_leading for node in nodes) == 1
