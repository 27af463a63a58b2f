"""Others write rules too: apply waits for the lock as iptables does, and says for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.manifests import PORT, App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.lab import Lab

HELD_S = 4
FIRST = world([App(name="web", number=901, ready=("pod-a",))])
SECOND = world([App(name="web", number=901, ready=("pod-b",))])


@pytest.mark.variants("legacy")
def test_apply_waits_for_the_lock_and_names_who_holds_it(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.apply(FIRST)
    rulegen.write(SECOND)
    holder = lab.node.popen(["flock", str(lab.lockfile), "sh", "-c", f"echo held; sleep {HELD_S}"])
    lab.node.run(["sh", "-c", f"while flock -n {lab.lockfile} true; do sleep 0.01; done"]).check()
    done = rulegen.attempt("apply")
    holder.wait()
    assert done.code == 0, done.stderr
    assert done.elapsed_s > HELD_S - 1
    assert "waiting for the xtables lock" in done.stderr
    assert "flock" in done.stderr
    assert lab["pod-c"].request("TCP", App(name="web", number=901).cluster_ip(4), PORT).name == "pod-b"


@pytest.mark.variants("legacy")
def test_apply_gives_up_after_its_time_and_has_broken_nothing(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.apply(FIRST)
    rulegen.write(SECOND)
    holder = lab.node.popen(["flock", str(lab.lockfile), "sleep", "20"])
    lab.node.run(["sh", "-c", f"while flock -n {lab.lockfile} true; do sleep 0.01; done"]).check()
    done = rulegen.attempt("apply", "--lock-wait", "1")
    holder.kill(group=True)
    holder.wait()
    assert done.code == 1
    assert "lock" in done.stderr
    assert "Traceback" not in done.stderr
    assert lab["pod-c"].request("TCP", App(name="web", number=901).cluster_ip(4), PORT).name == "pod-a"
    assert rulegen.attempt("apply").code == 0


def test_two_applies_at_once_both_succeed(lab: Lab, rulegen: Rulegen) -> None:
    """Of the same objects: who comes second finds it done, or does what is left."""
    rulegen.apply(FIRST)
    rulegen.write(SECOND)
    both = [rulegen.start("apply"), rulegen.start("apply")]
    ends = [program.wait() for program in both]
    # A restore that another writer overtook is refused by the kernel as a whole; another apply then goes on.
    assert any(end.code == 0 for end in ends), [end.stderr for end in ends]
    assert not any("Traceback" in end.stderr for end in ends)
    rulegen.apply(SECOND)
    rulegen.check_converged()
    assert lab["pod-c"].request("TCP", App(name="web", number=901).cluster_ip(4), PORT).name == "pod-b"
