"""The agent waits for its Node object, and follows its host's name until there is one."""

from __future__ import annotations

import pytest

from rulegen.agent.inbox import Wake
from rulegen.agent.pages_server.health import healthz, livez
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Gone
from rulegen.kube.objects.names import ObjectName
from tests.agent.services.test_loop import WEB
from tests.agent.stage import Stage, changed, endpoints, node, service


class TestUnknownNode:
    """The cluster does not know this node: all endpoints would count as those of others."""

    def test_nothing_is_written_before_the_node_exists(self):
        """Nothing is written before the node is there and that is told once."""
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
        assert "there are no Node objects, so Node node1 is unknown" in stage.state.last_error
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

    def test_a_restart_under_a_new_name_is_tried_once(self):
        """Where nothing can begin under a new name that is tried once."""
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
