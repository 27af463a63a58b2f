"""A tool that fails without a word is not the fault of any rule: the error names the tool, its exit code and family."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.agent.telemetry.log import fault
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import run
from rulegen.host.dataplane.apply import Step, perform
from rulegen.host.dataplane.drivers import DRIVERS
from rulegen.host.dataplane.refused_services import is_refusal
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family

SCRIPT = "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\nCOMMIT\n"


@pytest.fixture
def tool(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "ip6tables-nft-restore"


def failure(tool: Path, text: str) -> HostError:
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)
    step = Step("IPv6 nat", lambda: iptables.restore(run, Variant.NFT, Family.IPV6, SCRIPT))
    with pytest.raises(ApplyError) as caught:
        perform((step,))
    return caught.value


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("exit 3", "ended with exit code 3 and without a message"),
        ("kill -9 $$", "was ended by signal 9"),
        ("echo >&2; exit 1", "ended with exit code 1 and without a message"),
    ],
)
def test_a_silent_failure_names_the_tool_and_no_rule(tool, text, how):
    error = failure(tool, text)

    assert error.message == f"`ip6tables-nft-restore --noflush -w 5` {how}: the IPv6 rules were not written"
    assert not is_refusal(error, DRIVERS)


def test_a_rejected_line_is_logged_without_the_lines_around_it(tool):
    error = failure(tool, "echo 'ip6tables-restore: line 3 failed' >&2; exit 1")

    assert is_refusal(error, DRIVERS)
    assert "\n" in error.message
    assert fault(error)["error"].startswith("ip6tables-nft-restore rejected line 3, `-A KUBE-MARK-MASQ")
    assert "\n" not in fault(error)["error"]


def test_no_message_of_the_agent_says_to_apply_again():
    """`run` tries again by itself; the modules that only `apply` uses may say so."""
    package = Path(iptables.__file__).parents[2]
    files = [*(package / "host").rglob("*.py"), *(package / "agent").rglob("*.py")]
    named = [file for file in files if "apply again" in file.read_text() and file.parent.name != "userspace"]

    assert files
    assert not named
