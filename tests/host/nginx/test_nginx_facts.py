"""What nginx is, from what it says; who holds a port; which processes are ours; logs that grow."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, Completed, MissingToolError, find, run
from rulegen.host.nginx.facts import AGAIN_S, CheckedFacts, gather_nginx, without_unloadable
from rulegen.host.nginx.program import NGINX
from rulegen.host.node.name_servers import resolvers
from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.disk.log_rotation import RotatedLog, cut, rotate
from rulegen.host.proxy.processes import ports
from rulegen.languages.nginx.facts import HEADERS_MORE
from rulegen.safe_files import folder_at

SAYS = """\
nginx version: nginx/1.22.1
built with OpenSSL 3.0.22 25 Aug 2026 (running with OpenSSL 3.0.19 27 Jan 2026)
TLS SNI support enabled
configure arguments: --prefix=/usr/share/nginx --modules-path={modules} --with-compat --with-http_ssl_module \
--with-http_v2_module --with-stream=dynamic --with-http_geoip_module=dynamic --with-threads
"""


def saying(text: str, code: int = 0):
    return lambda _: Completed(code, "", text)


def test_what_nginx_says_becomes_facts(tmp_path):
    (tmp_path / "ngx_stream_module.so").touch()
    (tmp_path / "resolv.conf").write_text(
        "# x\nsearch a b\nnameserver 10.0.0.2\nnameserver fd00::2\nnameserver 10.0.0.2\n"
    )

    facts = gather_nginx(saying(SAYS.format(modules=tmp_path)), user="root")

    assert facts.version == (1, 22, 1)
    assert facts.openssl == "3.0.19"
    assert facts.built_in == {"compat", "http_ssl_module", "http_v2_module", "threads"}
    assert dict(facts.modules) == {"ngx_stream_module": str(tmp_path / "ngx_stream_module.so")}
    assert (facts.user, facts.group) == ("root", "root")


def test_the_installed_nginx():
    if find("nginx") is None:
        pytest.skip("no nginx")
    facts = gather_nginx(run)

    assert facts.version >= (1, 18, 0)
    assert facts.user


@pytest.mark.parametrize(
    "argument", ["--add-module=/build/headers-more-nginx-module-0.34", "--add-module=../headers_more"]
)
def test_a_module_that_is_built_in_is_a_fact(argument):
    facts = gather_nginx(saying(SAYS.format(modules="/nowhere") + f" {argument} --with-pcre"), user="root")
    assert HEADERS_MORE in facts.built_in


def test_a_module_that_nginx_does_not_load_is_left_out(tmp_path):
    """One of another version, or outside of the folders that the sandbox shows, would stop every change."""
    if find("nginx") is None:
        pytest.skip("no nginx")
    (tmp_path / f"{HEADERS_MORE}.so").write_bytes(b"\x7fELF")
    outside = replace(gather_nginx(run), modules={HEADERS_MORE: str(tmp_path / f"{HEADERS_MORE}.so"), "other": "/x"})
    broken = replace(outside, modules={HEADERS_MORE: f"/usr/{tmp_path.name}/no.so"})

    assert without_unloadable(run, "nginx", outside, HEADERS_MORE).modules == {"other": "/x"}
    assert without_unloadable(run, "nginx", broken, HEADERS_MORE).modules == {}


@pytest.mark.parametrize("code", [1, 137])
def test_a_test_that_fails_without_a_word_says_nothing_about_a_module(tmp_path, code):
    facts = replace(
        gather_nginx(saying(SAYS.format(modules="/nowhere")), user="root"), modules={HEADERS_MORE: "/usr/lib/a.so"}
    )
    script = tmp_path / "nginx"
    script.write_text(f"#!/bin/sh\nexit {code}\n")
    script.chmod(0o755)
    with pytest.raises(HostError, match=r"-t does not say whether it can load /usr/lib/a.so"):
        without_unloadable(run, str(script), facts, HEADERS_MORE)

    now = [0.0]
    checked = CheckedFacts(run, str(script), lambda: facts, HEADERS_MORE, lambda: now[0])
    assert checked.facts() == facts, "an agent starts all the same"
    assert "does not say" in checked.trouble
    script.write_text("#!/bin/sh\necho /usr/lib/a.so is not binary compatible >&2\nexit 1\n")
    assert checked.facts() == facts, "it is asked again after a while"
    now[0] += AGAIN_S
    assert (checked.facts().modules, checked.trouble) == ({}, "")


def test_an_installed_module_is_loaded():
    if find("nginx") is None or HEADERS_MORE not in gather_nginx(run).modules:
        pytest.skip("no nginx with the module")
    facts = gather_nginx(run)
    assert without_unloadable(run, "nginx", facts, HEADERS_MORE) == facts


def test_a_missing_nginx_is_reported_with_the_next_step():
    def missing(command: Command) -> Completed:
        raise MissingToolError(command.argv[0])

    with pytest.raises(HostError, match="nginx is not installed") as caught:
        gather_nginx(missing)
    assert caught.value.hint == "apt install nginx-light"


@pytest.mark.parametrize("answer", ["", "nginx version: openresty", "Segmentation fault"])
def test_a_program_that_is_not_nginx_is_reported(answer):
    with pytest.raises(HostError, match="shows no version of nginx"):
        gather_nginx(saying(answer))


def test_a_missing_worker_user_is_reported():
    with pytest.raises(HostError, match="there is no user 'nowhere'"):
        gather_nginx(saying(SAYS.format(modules="/nowhere")), user="nowhere")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("nameserver\nnameserver x\n#nameserver 1.1.1.1\n", ()),
        ("nameserver fe80::1%eth0\nnameserver ::1\n", (ip_address("::1"),)),
    ],
)
def test_name_servers(tmp_path, text, expected):
    (tmp_path / "resolv.conf").write_text(text)

    assert resolvers(tmp_path / "resolv.conf") == expected


def test_no_list_of_name_servers(tmp_path):
    assert resolvers(tmp_path / "resolv.conf") == ()


def test_who_holds_a_port(namespace):
    with socket.create_server(("127.0.0.1", 81)), socket.create_server(("::1", 82), family=socket.AF_INET6):
        result = ports.holders([80, 81, 82])
        assert [(each.port, each.pid) for each in result] == [(81, os.getpid()), (82, os.getpid())]
        assert ports.holders([80, 81, 82], ours=[os.getpid()]) == ()
    assert ports.holders([81, 82]) == ()


def test_a_program_that_only_calls_itself_nginx_is_not_ours(tmp_path):
    title = "nginx: master process nginx"
    process = subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 60"], cwd=tmp_path)
    try:
        until = time.monotonic() + 5
        while title.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes() and time.monotonic() < until:
            time.sleep(0.01)
        assert NGINX.processes(tmp_path) == ()
    finally:
        process.kill()
        process.wait()


def test_a_process_id_that_was_given_away_is_not_signalled():
    process = subprocess.Popen(["sleep", "60"])
    try:
        other = processes.ProxyProcess(process.pid, processes.started(process.pid) - 1, 1, processes.Role.WORKER)
        assert not processes.send(other, processes.signal.SIGKILL)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert processes.started(process.pid) == 0


def test_a_log_that_its_program_keeps_open_is_cut_and_goes_on(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    log = tmp_path / "start.log"
    with log.open("ab", buffering=0) as program:
        program.write(b"old\n" * 10)
        cut("start.log", dir_fd=folder, largest=8)
        program.write(b"new\n")
        assert log.read_bytes() == b"new\n"
        assert (tmp_path / "start.log.1").read_bytes() == b"old\n" * 2
        cut("start.log", dir_fd=folder, largest=8)
        assert log.read_bytes() == b"new\n"
    os.close(folder)


def test_a_log_that_grew_is_set_aside_once(tmp_path):
    (tmp_path / "access.log").write_text("x" * 100)
    (tmp_path / "error.log").write_text("x")

    with folder_at(tmp_path) as folder:
        assert rotate(folder, largest=50)
        assert not rotate(folder, largest=50)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["access.log.1", "error.log"]


def test_the_journal_survives_a_folder_that_is_gone(tmp_path):
    (tmp_path / "logs").mkdir()
    with folder_at(tmp_path / "logs") as folder:
        journal = RotatedLog(folder, "keeper.log")
        journal.write("kept \udcff")
        assert (tmp_path / "logs" / "keeper.log").read_text().endswith("Z kept \\udcff\n")
        shutil.rmtree(tmp_path / "logs")
        journal.write("lost")
    assert not (tmp_path / "logs").exists()


def test_the_journal_follows_no_link(tmp_path):
    (tmp_path / "keeper.log").symlink_to(tmp_path / "victim")
    with folder_at(tmp_path) as folder:
        RotatedLog(folder, "keeper.log").write("lost")
    assert not (tmp_path / "victim").exists()


def test_the_supervisor_is_small():
    """It lives as long as nginx: what it never needs, it never loads."""
    text = "import sys, rulegen.host.proxy.processes.supervisor; print(*sys.modules)"
    loaded = run(Command((sys.executable, "-c", text), environment={"PYTHONPATH": ":".join(sys.path)})).stdout.split()

    heavy = {"kubernetes", "pyroute2", "jinja2", "subprocess", "ctypes", "dataclasses", "json", "logging"}
    assert "rulegen.host.proxy.processes.supervisor" in loaded
    assert not heavy & set(loaded)
