"""Rules of a real kernel, read and written in both variants and families; refusals explained; who holds the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, run
from rulegen.host.netfilter.iptables import LockError, RestoreError, observe, restore
from rulegen.host.netfilter.variant import Variant
from rulegen.host.netfilter.xtables_lock import holder, watched
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = '*nat\n:KUBE-A - [0:0]\n-A KUBE-A -m comment --comment "caf\udce9 x" -j RETURN\nCOMMIT\n'


@pytest.mark.usefixtures("namespace")
class TestKernel:
    def test_an_untouched_namespace_has_no_rules_and_stays_so(self, variant, family):
        assert "*" not in observe(run, variant, family)
        assert "*" not in observe(run, variant, family)

    def test_what_is_written_is_read_back(self, variant, family):
        restore(run, variant, family, SCRIPT)

        seen = observe(run, variant, family)

        assert ":KUBE-A - [0:0]\n" in seen
        assert '-A KUBE-A -m comment --comment "caf\udce9 x" -j RETURN\n' in seen
        assert "*filter" not in seen

    def test_what_a_script_does_not_name_stays(self, variant, family):
        restore(run, variant, family, SCRIPT)
        before = _rules(observe(run, variant, family))

        restore(run, variant, family, "*nat\n:KUBE-B - [0:0]\n-A KUBE-B -j RETURN\nCOMMIT\n")

        assert set(before) <= set(_rules(observe(run, variant, family)))

    def test_counters_on_demand(self, variant):
        restore(run, variant, Family.IPV4, SCRIPT)

        assert "[0:0] -A KUBE-A" in observe(run, variant, Family.IPV4, counters=True)

    def test_rules_of_a_foreign_tool_are_not_taken_for_none(self):
        restore(run, Variant.NFT, Family.IPV4, SCRIPT)
        foreign = ("nft", "add", "rule", "ip", "nat", "KUBE-A", "meta", "mark", "set", "numgen", "random", "mod", "3")
        assert run(Command(foreign)).code == 0

        with pytest.raises(HostError, match="table nat holds rules that are not iptables' own"):
            observe(run, Variant.NFT, Family.IPV4)


def _rules(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-A")]


HEAD = "*nat\n:KUBE-A - [0:0]\n:KUBE-B - [0:0]\n-A KUBE-A -j KUBE-B\n"
REFUSED = [  # what comes behind HEAD, the line that is at fault in nft and in legacy, and a word of the reason in each
    ("-A KUBE-A -j KUBE-GONE", 5, 5, "KUBE-GONE", "KUBE-GONE"),
    ("-A KUBE-A -g KUBE-GONE", 5, 5, "KUBE-GONE", "KUBE-GONE"),
    ("-A KUBE-A -m nonsense -j RETURN", 5, 5, "nonsense", "nonsense"),
    ("-A KUBE-A --nonsense x -j RETURN", 5, 5, "nonsense", "nonsense"),
    ("-A KUBE-A -d 1.2.3.400 -j RETURN", 5, 5, "1.2.3.400", "1.2.3.400"),
    ("-A KUBE-A -m set --match-set gone dst -j RETURN", 5, 5, "gone", "gone"),
    ("-A KUBE-GONE -j RETURN", 5, 5, "No chain", "no such chain"),
    ("-D KUBE-A -s 1.2.3.4 -j RETURN", 5, 5, "matching rule", "no such chain or rule"),
    ("-I KUBE-A 9 -j RETURN", 5, 5, "too big", "no such chain or rule"),
    ("-X KUBE-B", 5, 5, "busy", "in use"),
    ("-X KUBE-GONE", 5, 5, "No chain", "no such chain"),
    (":KUBE-A-NAME-THAT-IS-TOO-LONG-FOR-ANY - [0:0]", 5, 5, "too long", "max"),
    ("-A KUBE-A -m nfacct --nfacct-name gone -j RETURN", 5, 6, "No such file", "without naming a line"),
    ("-A KUBE-B -j KUBE-A\n-A OUTPUT -j KUBE-A", 6, 7, "Too many links", "without naming a line"),
    ("hello", 5, 5, "Bad argument", "Bad argument"),
]


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_a_refused_script_names_its_line(variant, row):
    tail, nft_line, legacy_line, nft_word, legacy_word = row
    with pytest.raises(RestoreError) as caught:
        restore(run, variant, Family.IPV4, f"{HEAD}{tail}\nCOMMIT\n")

    line, word = (nft_line, nft_word) if variant is Variant.NFT else (legacy_line, legacy_word)
    text = f"{HEAD}{tail}\nCOMMIT\n".splitlines()[line - 1]
    assert (caught.value.line, caught.value.text) == (line, text)
    assert word in caught.value.complaint
    assert caught.value.message.startswith(f"iptables-{variant}-restore rejected line {line}, `{text}`: ")
    assert "\n" not in caught.value.message
    assert f"> {line:>6}  {text}" in caught.value.excerpt.splitlines()
    assert "KUBE-A" not in observe(run, variant, Family.IPV4)


@pytest.mark.usefixtures("namespace")
def test_tables_before_the_rejected_one_are_reported(variant):
    with pytest.raises(RestoreError) as caught:
        restore(run, variant, Family.IPV4, f"{SCRIPT}*filter\n-A KUBE-GONE -j RETURN\nCOMMIT\n")

    assert caught.value.committed == ("nat",)
    assert "KUBE-A" in observe(run, variant, Family.IPV4)


@pytest.mark.usefixtures("namespace")
def test_a_script_without_an_end_is_refused(variant):
    with pytest.raises(RestoreError, match="COMMIT expected"):
        restore(run, variant, Family.IPV4, "*nat\n:KUBE-A - [0:0]\n")
    with pytest.raises(RestoreError, match="nope"):
        restore(run, variant, Family.IPV4, "*nope\n:KUBE-A - [0:0]\nCOMMIT\n")


def test_context_is_five_lines_around():
    script = "".join(f"line {number}\n" for number in range(1, 101))
    error = RestoreError(Variant.NFT, Family.IPV6, script, code=1, stderr="ip6tables-nft-restore: line 50 failed: X\n")

    lines = error.excerpt.splitlines()
    assert [line.split()[-1] for line in lines] == [str(number) for number in range(45, 56)]
    assert [line for line in lines if line.startswith(">")] == [">     50  line 50"]
    assert error.message == "ip6tables-nft-restore rejected line 50, `line 50`: X"


@pytest.mark.parametrize(
    ("stderr", "line"),
    [("", None), ("line 0 failed", None), ("line 900 failed", None), ("line 99999999999999999999999 failed", None)],
)
def test_a_line_that_is_not_there_is_not_shown(stderr, line):
    error = RestoreError(Variant.NFT, Family.IPV4, "*nat\nCOMMIT\n", code=3, stderr=stderr)

    assert (error.line, error.text, error.excerpt) == (line, "", "")


def test_control_characters_do_not_reach_a_terminal():
    error = RestoreError(Variant.NFT, Family.IPV4, "-A X \x1b[2J\n", code=1, stderr="x: line 1 failed: \x1b[2J\n")

    assert "\x1b" not in error.message + error.excerpt


# -- the lock of legacy ------------------------------------------------------------------------------------------------

HOLD = """
import fcntl, os, sys, time
lock = open(os.environ["XTABLES_LOCKFILE"], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print(os.getpid(), flush=True)
time.sleep(float(sys.argv[1]))
"""


@contextmanager
def locked(seconds: float = 60) -> Iterator[int]:
    """Let a stranger hold the lock, a process that is no child of ours; yields its id."""
    strange = ("sh", "-c", '"$@"; true', "sh", sys.executable, "-c", HOLD, str(seconds))
    with subprocess.Popen(strange, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("namespace")
class TestLock:
    def test_no_holder(self):
        assert holder() is None

    def test_who_waits_in_vain_learns_for_whom(self):
        with locked() as pid:
            with pytest.raises(LockError) as caught:
                restore(run, Variant.LEGACY, Family.IPV4, SCRIPT, wait_s=1)
            assert "KUBE-A" not in observe(run, Variant.LEGACY, Family.IPV4)
        assert caught.value.message.startswith(f"the xtables lock was not free within 1 s: held by process {pid} (")
        assert "import fcntl" in caught.value.message
        assert "\n" not in caught.value.message

    @pytest.mark.parametrize("wait_s", [9, 0])
    def test_waiting_for_the_lock_is_reported(self, wait_s):
        messages: list[str] = []
        with locked(1.6) as pid:
            restore(run, Variant.LEGACY, Family.IPV4, SCRIPT, messages.append, wait_s=wait_s)
        assert len(messages) == 1
        assert messages[0].startswith(f"waiting for the xtables lock: held by process {pid} (")
        assert "KUBE-A" in observe(run, Variant.LEGACY, Family.IPV4)

    def test_our_own_tool_is_no_stranger(self):
        with watched(None, after_s=0.05) as seen:
            run(Command((sys.executable, "-c", HOLD, "0.4")))
        assert seen == []

    def test_nft_waits_for_nobody(self):
        with locked():
            restore(run, Variant.NFT, Family.IPV4, SCRIPT, wait_s=1)
        assert "KUBE-A" in observe(run, Variant.NFT, Family.IPV4)

    def test_a_free_lock_tells_nothing(self):
        messages: list[str] = []
        restore(run, Variant.LEGACY, Family.IPV4, SCRIPT, messages.append)
        assert messages == []


# -- hosts that refuse -------------------------------------------------------------------------------------------------


def refusing(stderr: str, code: int = 4):
    return lambda command: Completed(code, "", stderr)


def test_reading_without_privilege():
    with pytest.raises(HostError) as caught:
        observe(refusing("Could not fetch rule set generation id: Permission denied"), Variant.NFT, Family.IPV6)
    assert caught.value.message.startswith("reading the IPv6 rules of iptables-nft: ")
    assert "CAP_NET_ADMIN" in caught.value.hint


def test_writing_without_privilege():
    run = refusing("Fatal: can't open lock file /run/xtables.lock: Permission denied")
    with pytest.raises(HostError) as caught:
        restore(run, Variant.LEGACY, Family.IPV4, SCRIPT)
    assert not isinstance(caught.value, RestoreError)
    assert "CAP_NET_ADMIN" in caught.value.hint


UNPRIVILEGED = """
import os, sys
from rulegen.errors import HostError
from rulegen.host.netfilter.iptables import observe
from rulegen.host.commands.runner import run
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for family in Family:
    try:
        print(repr(observe(run, Variant(sys.argv[1]), family)))
    except HostError as error:
        print("refused:", error.hint)
"""


@pytest.mark.usefixtures("namespace")
def test_an_unreadable_list_of_legacy_tables_is_an_error(variant):
    ended = run(Command((sys.executable, "-c", UNPRIVILEGED, variant)))

    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == ["refused", "refused"], ended.stderr


def test_no_tool_at_all():
    def nothing(command: Command) -> Completed:
        raise MissingToolError(command.argv[0])

    with pytest.raises(MissingToolError):
        observe(nothing, Variant.NFT, Family.IPV4)
