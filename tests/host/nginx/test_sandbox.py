"""The sandbox: nginx says what it says, and can do no harm while it does."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, run
from rulegen.host.nginx.program import NGINX
from rulegen.host.proxy.disk.releases import Releases
from rulegen.host.proxy.sandbox import identity, trial
from rulegen.languages.configuration import Configuration, SecretContent
from tests.host.nginx.examples import configuration, server
from tests.rights import needs_sandbox

pytestmark = needs_sandbox

KEY = "secrets/0123456789abcdef.pem"


@pytest.fixture(params=["sealed", "bare"])
def runner(request):
    """Run tools as they are, or as where the kernel gives no namespaces."""
    if request.param == "sealed":
        return run

    def without_namespaces(command: Command) -> Completed:
        if command.argv[0] == "unshare":
            return Completed(1, "", "unshare: unshare failed: Operation not permitted\n")
        return run(command)

    return without_namespaces


def verdict(folder: Path, each: Configuration, runner=run, **options) -> trial.TrialResult:
    place = Releases(folder, NGINX).write(each)
    return trial.try_release(place, folder, runner, NGINX, **options)


def test_what_is_right_passes(folder, namespace, runner):
    result = verdict(folder, configuration({"a.test": server("a.test", port=80)}), runner)

    assert result.message is None
    assert bool(result.note) == (runner is not run)


def test_a_fault_is_reported_with_its_line_in_the_release(folder, namespace, runner):
    result = verdict(folder, configuration({"a.test": server("a.test", extra="bogus on;")}), runner)

    assert result.message is not None
    assert result.message.startswith('unknown directive "bogus" in hosts/')
    assert result.message.endswith(".conf:4")


@pytest.mark.parametrize("umask", [0o077, 0o777])
def test_what_is_right_passes_whatever_the_umask_is(folder, namespace, runner, umask):
    before = os.umask(umask)
    try:
        result = verdict(folder, configuration({"a.test": server("a.test", port=80)}), runner)
    finally:
        os.umask(before)

    assert result.message is None


def test_zones_that_nobody_fills_yet_take_no_memory(folder, namespace, runner):
    zones = "".join(f"limit_req_zone $binary_remote_addr zone=z{n}:90m rate=1r/s;\n" for n in range(100))
    each = configuration({"a.test": zones + server("a.test", port=80)})

    assert verdict(folder, each, runner).message is None


@pytest.mark.parametrize("listen", ["80", "192.0.2.77:80", "[2001:db8::7]:443"])
def test_any_port_of_any_address_can_be_listened_on(folder, listen):
    assert verdict(folder, configuration({"a.test": server("a.test", port=listen)})).message is None


def test_what_runs_is_not_disturbed(folder, namespace):
    with socket.create_server(("127.0.0.1", 8080)) as listener:
        assert verdict(folder, configuration()).message is None
        socket.create_connection(("127.0.0.1", 8080)).close()
        listener.accept()[0].close()


def test_keys_can_be_read_there_though_only_we_may_here(folder, runner, namespace):
    including = server("a.test", extra=f"include {KEY};")
    result = verdict(folder, configuration({"a.test": including}, secrets={KEY: SecretContent(b"# fine\n")}), runner)

    assert result.message is None


@pytest.mark.parametrize("path", ["/etc/shadow", "/home/key", "/proc/1/environ", "/proc/self/environ", "/var/log/x"])
def test_nothing_of_the_node_can_be_read(folder, path):
    result = verdict(folder, configuration({"a.test": server("a.test", extra=f"include {path};")}))

    assert result.message is not None
    assert "Permission denied" in result.message or "No such file" in result.message


def test_not_even_what_everybody_can_read_beside_programs(folder, tmp_path):
    (tmp_path / "open").write_text("# readable\n")
    tmp_path.chmod(0o755)

    result = verdict(folder, configuration({"a.test": server("a.test", extra=f"include {tmp_path}/open;")}))

    assert result.message is not None
    assert "No such file" in result.message


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/var/tmp", "/usr", "/etc"])
def test_nothing_of_the_node_can_be_written(folder, place):
    path = f"{place}/rulegen-was-here-{os.getpid()}"
    result = verdict(folder, configuration(top=f"error_log {path};"))

    assert result.message is not None
    assert not Path(path).exists()


def test_a_name_is_not_looked_up_in_any_network(folder):
    upstream = server("a.test", extra="location /x { proxy_pass http://example.com; }")

    result = verdict(folder, configuration({"a.test": upstream}))

    assert result.message is not None
    assert "host not found" in result.message


def test_a_test_that_takes_too_long_is_no_verdict(folder, tmp_path):
    """A slow disk is not the fault of an Ingress, which would be left out for a verdict."""
    busy = tmp_path / "nginx-busy"
    busy.write_text("#!/bin/sh\nexec sleep 60\n")
    busy.chmod(0o755)
    tmp_path.chmod(0o755)

    with pytest.raises(HostError, match=r"the test of nginx timed out after 0\.3 s"):
        verdict(folder, configuration(), binary=str(busy), timeout_s=0.3)


def test_a_test_that_somebody_kills_is_no_verdict(folder, tmp_path):
    killed = tmp_path / "nginx-killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    tmp_path.chmod(0o755)

    with pytest.raises(HostError, match=r"the test of nginx was killed"):
        verdict(folder, configuration(), binary=str(killed))


def test_it_runs_as_a_user_of_its_own_with_nothing(folder, tmp_path):
    spy = tmp_path / "nginx-spy"
    spy.write_text(
        "#!/bin/sh\n"
        'echo "nginx: [emerg] $(id -u) $(id -G) pid $$ $(env | cut -d= -f1 | sort | tr "\\n" " ")" >&2\n'
        "cat /sys/class/net/*/ifindex 2>&1 | wc -l >/dev/null\n"
        'ls / | tr "\\n" " " | sed "s/^/nginx: [emerg] root /" >&2\n'
        "exit 1\n"
    )
    spy.chmod(0o755)
    result = verdict(folder, configuration(), binary=str(spy))

    assert result.message is not None
    who, root = result.message.split("\n")
    user, group = (int(word) for word in who.split()[:2])
    assert user == group
    assert identity.PREFERRED.first <= user <= identity.PREFERRED.last
    with pytest.raises(KeyError):
        pwd.getpwuid(user)
    assert not {"HOME", "USER", "SSH_AUTH_SOCK"} & set(who.split())
    assert not {"root", "home", "var", "run", "sys"} & set(root.split()[1:])
