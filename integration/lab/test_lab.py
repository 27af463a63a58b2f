"""The lab itself, with rules written by hand or none: so that a failure elsewhere is that of rulegen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from integration.lab import topology
from integration.lab.hosts import TRANSPORTS
from integration.lab.lab import build
from integration.lab.namespaces import Namespaces
from integration.lab.peer.templates import Templates

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import DriverType, LabMaker
    from integration.lab.hosts import Answer, Family, Transport
    from integration.lab.lab import Lab
    from integration.lab.peers import Wire


@pytest.fixture
def bare(labs: LabMaker, driver: DriverType) -> Lab:
    """Give a lab of each driver that no rules were ever put into."""
    return labs(driver, "bare")


ASKERS = (topology.CLIENT, topology.NODE, "pod-a", "pod-x")


def test_everybody_reaches_every_pod_with_the_own_source(bare: Lab, family: Family) -> None:
    """Routing alone changes no address."""
    for who in ASKERS:
        for pod in topology.PODS:
            for protocol in TRANSPORTS:
                answer = bare[who].request(protocol, bare[pod].addresses(family)[0], topology.PORTS[0])
                seen = (answer.outcome, answer.name, answer.source)
                assert seen == ("answered", pod, topology.address(who, family)), (who, pod, protocol)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_closed_port_refuses_at_once(bare: Lab, family: Family, protocol: Transport) -> None:
    answer = bare["pod-a"].request(protocol, bare["pod-b"].addresses(family)[0], 9)
    assert answer.outcome == "refused"
    assert answer.elapsed_s < 0.9


def test_what_no_rule_takes_is_unreachable(bare: Lab, family: Family) -> None:
    """So a test can tell a packet that is dropped from one that is not touched at all."""
    address = "10.96.9.9" if family == 4 else "fd00:10:96::9"
    for who in (topology.CLIENT, "pod-a"):
        assert bare[who].request("TCP", address, 80).outcome == "unreachable", who


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_hand_written_rules_send_a_pod_to_another_and_to_itself(bare: Lab, family: Family, protocol: Transport) -> None:
    """A DNAT rule and a MASQUERADE rule for the pod that reaches itself: all that Services are made of."""
    tool = "iptables-nft" if family == 4 else "ip6tables-nft"
    service = "10.96.9.10" if family == 4 else "fd00:10:96::910"
    pod = bare["pod-a"].addresses(family)[0]
    to = f"{pod}:8080" if family == 4 else f"[{pod}]:8080"
    rules = [
        ["PREROUTING", "-d", service, "-p", protocol.lower(), "--dport", "80", "-j", "DNAT", "--to-destination", to],
        ["POSTROUTING", "-s", str(pod), "-d", str(pod), "-j", "MASQUERADE"],
    ]
    for rule in rules:
        bare.node.run([tool, "-t", "nat", "-I", *rule]).check()
    try:
        answer = bare["pod-b"].request(protocol, service, 80)
        assert (answer.name, answer.source) == ("pod-a", bare["pod-b"].addresses(family)[0])
        answer = bare["pod-a"].request(protocol, service, 80)
        assert answer.name == "pod-a"
        assert answer.source in bare.node.addresses(family)
    finally:
        for rule in rules:
            bare.node.run([tool, "-t", "nat", "-D", *rule]).check()


def test_a_connection_that_no_rule_took_is_soon_forgotten(bare: Lab) -> None:
    """So a later one from the same port is not unreachable too, although there is a rule by then."""
    to = f"{bare['pod-a'].addresses(4)[0]}:8080"
    rules = [
        ["PREROUTING", "-d", each, "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", to]
        for each in ("10.96.9.11", "10.96.9.12")
    ]

    def asked() -> Answer:
        return bare["pod-b"].request("TCP", "10.96.9.12", 80, source_port=40001)

    bare.node.run(["iptables-nft", "-t", "nat", "-I", *rules[0]]).check()  # with it, conntrack is in use
    try:
        assert asked().outcome == "unreachable"
        bare.node.run(["iptables-nft", "-t", "nat", "-I", *rules[1]]).check()
        time.sleep(1.2)
        assert asked().name == "pod-a"
    finally:
        for rule in rules:
            bare.node.run(["iptables-nft", "-t", "nat", "-D", *rule])


def test_a_program_runs_inside_with_input_and_ends_with_its_code(bare: Lab) -> None:
    done = bare.node.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin="yes\n")
    assert (done.code, done.stdout, done.stderr) == (3, "yes\n", "no\n")


def test_a_forked_program_is_as_a_started_one(bare: Lab) -> None:
    """The same code and output for the same arguments, one after the other."""
    program = [sys.executable, "-W", "error", "-m", "rulegen"]
    for words in (["--version"], ["plan"], ["plan", "-f", "/nowhere", "--observed", "none"]):
        started, forked = bare.node.run([*program, *words]), bare.node.fork([*program, *words]).wait()
        assert (forked.code, forked.stdout, forked.stderr) == (started.code, started.stdout, started.stderr)


def test_a_program_can_be_killed_with_all_that_it_started(bare: Lab) -> None:
    running = bare.node.popen(["sh", "-c", "sleep 100 & sleep 100"])
    running.kill(group=True)
    assert running.wait(5).code == -9


def test_a_program_that_hangs_is_ended_at_its_timeout(bare: Lab) -> None:
    assert bare.node.run(["sleep", "100"], timeout_s=0.1).code is None


def test_a_fork_that_hangs_is_ended_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a timeout the exit codes are still read."""
    (tmp_path / "slow").mkdir()
    program = "import sys, time\nif __name__ == '__main__':\n    time.sleep(float(sys.argv[1]))\n    sys.exit(3)\n"
    (tmp_path / "slow" / "__main__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for stream in ("stdin", "stdout", "stderr"):
        (tmp_path / stream).touch()
    made = Templates()
    hanging, other = (made.fork([sys.executable, "-m", "slow", seconds], {}, tmp_path) for seconds in ("1000", "0.1"))
    assert hanging.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.wait(0.05)
    os.killpg(hanging.pid, signal.SIGKILL)
    assert (hanging.wait(30), other.wait(30)) == (-signal.SIGKILL, 3)
    hanging.template.close()


def test_a_reply_that_nobody_read_is_not_taken_for_the_next(bare: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that runs out of time ends between a command and its reply."""

    class OutOfTimeError(BaseException):
        pass

    def interrupted() -> str:
        raise OutOfTimeError

    wire: Wire = bare.node.wire  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(wire, "_lines", SimpleNamespace(readline=interrupted))
        with pytest.raises(OutOfTimeError):
            bare.node.run(["echo", "first"])
    assert bare.node.run(["echo", "second"]).stdout == "second\n"


def test_questions_without_pause_count_what_came_of_them(bare: Lab) -> None:
    pod = bare["pod-b"].addresses(4)[0]
    good, bad = bare["pod-a"].repeat("TCP", pod, 8080), bare["pod-a"].repeat("TCP", pod, 9)
    while bad.report().failures < 20 or not good.report().answered:
        time.sleep(0.01)
    report = good.stop()
    assert (set(report.answered), report.failures) == ({"pod-b"}, 0)
    report = bad.stop()
    assert (dict(report.answered), report.first_failures[0]["outcome"]) == ({}, "refused")


def test_labs_stand_side_by_side_and_leave_nothing(bare: Lab) -> None:
    """Two labs have the same names and addresses and do not see each other; a lab's folder goes with it."""
    with build(Namespaces()) as other:
        assert other.folder != bare.folder
        other["pod-a"].listen("TCP", 4, 9999)
        assert other["pod-b"].request("TCP", other["pod-a"].addresses(4)[0], 9999).outcome == "answered"
        assert bare["pod-b"].request("TCP", bare["pod-a"].addresses(4)[0], 9999).outcome == "refused"
    assert not other.folder.exists()
