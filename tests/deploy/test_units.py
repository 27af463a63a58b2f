"""The systemd units: systemd understands them, their options are there, their rights are those of the Pods."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.places import DEPLOY, unknown
from tests.deploy.test_manifests import CAPABILITIES
from tests.project.places import run

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

SANDBOX = {"SYS_ADMIN", "SYS_CHROOT", "NET_ADMIN"}
"""What trying nginx in namespaces takes; a Pod tries without."""


HARDENING = {
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
}
"""What both units ask for (systemd.exec(5))."""

OF_ITS_OWN = {
    # /proc/sys/net is what it sets, so kernel tunables are not protected
    "rulegen.service": {"RestrictNamespaces": "yes", "SystemCallFilter": "@system-service"},
    # the sandbox: namespaces and mounts; pidfd_getfd: the sockets of a killed nginx
    "rulegen-ingress.service": {
        "ProtectKernelTunables": "yes",
        "RestrictNamespaces": "mnt net pid ipc uts",
        "SystemCallFilter": "@system-service @mount pidfd_getfd",
    },
}


def settings(unit: Path) -> dict[str, list[str]]:
    """Return the values of each setting, in order."""
    text = unit.read_text(encoding="utf-8").replace("\\\n", " ")
    by_key: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith(("#", "[")):
            by_key.setdefault(key, []).append(value)
    return by_key


def capabilities(unit: Path) -> set[str]:
    return {word.removeprefix("CAP_") for line in settings(unit)["CapabilityBoundingSet"] for word in line.split()}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    # it looks whether the program is there
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/rulegen/bin/rulegen", sys.executable))

    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy)

    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_the_agent_with_options_that_there_are(unit: Path) -> None:
    (start,) = settings(unit)["ExecStart"]
    program, command, *words = shlex.split(start)

    assert (program, command) == ("/opt/rulegen/bin/rulegen", "run")
    assert unknown(words) == set()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_kept_running_and_in_bounds(unit: Path) -> None:
    said = {key: values[-1] for key, values in settings(unit).items()}

    assert (said["Type"], said["Restart"], said["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert int(said["WatchdogSec"]) >= 60  # not shorter than it takes /livez to say so
    assert said["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert said["After"].startswith("network-online.target")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_as_tight_as_it_can_be(unit: Path) -> None:
    wanted = HARDENING | OF_ITS_OWN[unit.name]
    said = {
        key: values for key, values in settings(unit).items() if key in {*wanted, "AmbientCapabilities", "Delegate"}
    }

    assert said == {key: [value] for key, value in wanted.items()}


def test_the_unit_for_services_has_the_rights_of_the_pod() -> None:
    unit = DEPLOY / "systemd/rulegen.service"

    assert capabilities(unit) == CAPABILITIES["services"]
    assert settings(unit)["ReadWritePaths"] == ["/run/xtables.lock"]
    assert settings(unit)["RuntimeDirectory"] == ["rulegen"]
    assert "ProtectKernelTunables" not in settings(unit)  # it would make /proc/sys read-only


def test_the_drop_in_for_userspace_mode_adds_what_its_proxy_needs() -> None:
    drop_in = DEPLOY / "systemd/rulegen-userspace.conf"

    assert capabilities(drop_in) == {"SETUID", "SETGID", "KILL", "SYS_PTRACE", "NET_BIND_SERVICE"}
    assert settings(drop_in)["KillMode"] == ["process"]
    assert settings(drop_in)["RuntimeDirectory"] == ["rulegen"]
    assert settings(drop_in)["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_ingress_unit_has_the_rights_of_pod_and_sandbox() -> None:
    unit = DEPLOY / "systemd/rulegen-ingress.service"

    assert capabilities(unit) == CAPABILITIES["ingress"] | SANDBOX
    assert settings(unit)["StateDirectory"] == ["rulegen"]
    assert settings(unit)["KillMode"] == ["process"]
