"""The credentials and certificates of a watch, and its end."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rulegen.apiserver.transport import connection
from rulegen.apiserver.watch import Watch
from rulegen.errors import HostError
from rulegen.kube.objects.names import ObjectName
from tests.apiserver.watch.objects import TLS, asked, is_watching, service
from tests.apiserver.watching import Consumer, fast, soon
from tests.fakes.certificates import make_certificate
from tests.fakes.faults import Fault
from tests.fakes.watches import (
    DROP,
    HALF_LINE,
)
from tests.servers.fakeapi import FakeApi
from tests.servers.forwardproxy import ForwardProxy

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestCredentials:
    @pytest.fixture
    def api(self) -> Iterator[FakeApi]:
        with FakeApi(token="first") as fake:
            yield fake

    def test_a_new_token_is_read_once_for_all(self, api, watch, seen, tmp_path):
        watcher = watch(ingress=True)
        assert is_watching(watcher, "IngressClass")
        api.token = "second"
        api.kubeconfig(tmp_path)
        api.break_connections()
        api.put("services", service("a"))

        assert soon(lambda: seen.names("Service") == ["a"])
        assert soon(lambda: all(is_watching(watcher, kind, 2) for kind in watcher.counts().watches))
        assert watcher._link.generation == 2

    def test_a_token_that_comes_late(self, api, watch, seen, warnings, tmp_path):
        watcher = watch()
        assert is_watching(watcher)
        api.token = "second"
        (tmp_path / "kubeconfig").unlink()
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: [each for each in warnings if "kubeconfig" in each])
        assert seen.names("Service") == []
        api.kubeconfig(tmp_path)

        assert soon(lambda: seen.names("Service") == ["a"])
        assert "second" not in "".join(warnings)

    @pytest.mark.not_quick
    def test_a_plugin_is_asked_again(self, api, watch, seen, tmp_path):
        token = tmp_path / "token"
        token.write_text("first")
        script = tmp_path / "plugin.py"
        version = "client.authentication.k8s.io/v1"
        credential = {"apiVersion": version, "kind": "ExecCredential"}
        script.write_text(
            f"import json\nprint(json.dumps({{**{credential!r}, 'status': {{'token': open({str(token)!r}).read()}}}}))"
        )
        user = {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(script)]}}
        watcher = watch(kubeconfig=api.kubeconfig(tmp_path, user=user))
        assert is_watching(watcher)
        api.token = "second"
        token.write_text("second")
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"]), watcher.counts()

    def test_a_file_with_a_token_is_read_again(self, api, watch, seen, tmp_path):
        token = tmp_path / "token"
        token.write_text("first")
        watcher = watch(kubeconfig=api.kubeconfig(tmp_path, user={"tokenFile": str(token)}))
        assert is_watching(watcher)
        api.token = "second"
        token.write_text("second")
        api.break_connections()
        api.put("services", service("a"))
        assert soon(lambda: seen.names("Service") == ["a"])

    def test_a_missing_configuration_is_reported_at_once(self, tmp_path):
        with pytest.raises(HostError, match="no such file"):
            Watch(print, kubeconfig=str(tmp_path / "absent"))


class TestTls:
    def test_another_certificate_and_authority(self, tmp_path, seen, warnings):
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
        old, new = make_certificate(tmp_path / "old"), make_certificate(tmp_path / "new")
        authority = tmp_path / "ca.crt"
        authority.write_bytes(old[0].read_bytes())
        with FakeApi(certificate=old) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(authority)})
            with Watch(seen, kubeconfig=kubeconfig, warn=warnings.append, timing=fast()) as watcher:
                assert is_watching(watcher)
                api.show_certificate(new)
                api.break_connections()
                api.put("services", service("a"))
                assert soon(lambda: [each for each in warnings if "certificate verify failed" in each])
                assert seen.names("Service") == []
                authority.write_bytes(new[0].read_bytes())
                assert soon(lambda: seen.names("Service") == ["a"])
                assert "tls" in {reason for _, reason in watcher.counts().errors}

    def test_connections_share_one_context_which_follows_its_files(self, tmp_path, seen):
        """Reading a system's authorities takes 30 ms of CPU and 1 MB, for each of some hundred connections."""

        def contexts(watcher: Watch) -> set[ssl.SSLContext]:
            return {each.context for each in list(watcher._link._open) if isinstance(each, ssl.SSLSocket)}

        for name in ("old", "new"):
            (tmp_path / name).mkdir()
        old, new = make_certificate(tmp_path / "old"), make_certificate(tmp_path / "new")
        authority = tmp_path / "ca.crt"
        authority.write_bytes(old[0].read_bytes())
        with FakeApi(certificate=old) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(authority)})
            with Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0)) as watcher:
                watcher.refer_to(secrets=[ObjectName("shop", f"tls-{number}") for number in range(10)])
                assert is_watching(watcher, "Secret")
                assert is_watching(watcher)
                (before,) = contexts(watcher)

                (tmp_path / "next").write_bytes(new[0].read_bytes())  # as ServiceAccounts have it: another file
                (tmp_path / "next").rename(authority)
                api.show_certificate(new)
                api.break_connections()
                assert is_watching(watcher, "Secret", 2)
                assert is_watching(watcher, times=2)
                (_,) = contexts(watcher) - {before}
                assert "tls" not in {reason for _, reason in watcher.counts().errors}
                assert watcher._link.generation == 1

    def test_disabled_verification_is_reported(self, tmp_path, seen, warnings):
        with FakeApi(certificate=make_certificate(tmp_path)) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"insecure-skip-tls-verify": True})
            with Watch(seen, kubeconfig=kubeconfig, warn=warnings.append, timing=fast()) as watcher:
                assert soon(lambda: watcher.has_synced)
        assert "not verified" in warnings[0]


class TestEnd:
    """Whatever a thread is waiting for, it ends within a second, and tells nothing afterwards."""

    @pytest.fixture
    def released(self) -> Iterator[threading.Event]:
        event = threading.Event()
        yield event
        event.set()

    def ends(self, watcher: Watch, seen: Consumer) -> bool:
        before = time.monotonic()
        is_over = watcher.stop()
        events = len(seen.events)
        return is_over and time.monotonic() - before < 1.0 and len(seen.events) == events

    def test_within_a_watch(self, api, watch, seen):
        watcher = watch(timing={"watch_silence": 60.0})
        watcher.refer_to(secrets=[TLS])
        assert is_watching(watcher, "Secret")
        assert self.ends(watcher, seen)

    def test_within_a_watch_without_chunks(self, api, watch, seen):
        api.has_chunks = False
        watcher = watch(timing={"watch_silence": 60.0})
        assert is_watching(watcher)
        assert self.ends(watcher, seen)

    def test_within_a_watch_through_a_proxy(self, tmp_path, seen):
        certificate = make_certificate(tmp_path)
        with FakeApi(certificate=certificate) as api, ForwardProxy("a:b") as proxy:
            cluster = {"certificate-authority": str(certificate[0]), "proxy-url": f"http://a:b@{proxy.address}"}
            kubeconfig = api.kubeconfig(tmp_path, **cluster)
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0))
            watcher.start()
            assert is_watching(watcher)
            assert self.ends(watcher, seen)

    def test_within_a_watch_by_tls(self, tmp_path, seen):
        certificate = make_certificate(tmp_path)
        with FakeApi(certificate=certificate) as api:
            kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(certificate[0])})
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast(watch_silence=60.0))
            watcher.start()
            assert is_watching(watcher)
            assert self.ends(watcher, seen)

    @pytest.mark.parametrize("sort", ["stall", "mute"])
    def test_before_and_within_an_answer(self, api, watch, seen, released, sort):
        api.fail("services", getattr(Fault, sort)(released))
        watcher = watch(is_synced=False, timing={"list_silence": 60.0})
        assert soon(lambda: asked(api, "services", watched=False))
        time.sleep(0.1)
        assert self.ends(watcher, seen)

    def test_within_a_handshake(self, tmp_path, seen):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            cluster = {"server": f"https://127.0.0.1:{silent.getsockname()[1]}", "insecure-skip-tls-verify": True}
            with FakeApi() as api:
                watcher = Watch(seen, kubeconfig=api.kubeconfig(tmp_path, **cluster), timing=fast())
            watcher.start()
            time.sleep(0.3)
            assert self.ends(watcher, seen)

    def test_while_a_connection_is_made_nothing_waits_for_it(self, tmp_path, seen, monkeypatch):
        monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 1.6)
        with socket.socket() as full, socket.socket() as first, socket.socket() as second, FakeApi() as api:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for each in (first, second):  # a third one gets no answer
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            kubeconfig = api.kubeconfig(tmp_path, server=f"http://127.0.0.1:{full.getsockname()[1]}")
            watcher = Watch(seen, kubeconfig=kubeconfig, timing=fast())
            watcher.start()
            time.sleep(0.3)
            before = time.monotonic()
            assert not watcher.stop()
            assert time.monotonic() - before < 1.2
            assert soon(lambda: not any(each.name.startswith("watch ") for each in threading.enumerate()))

    def test_within_a_pause(self, api, watch, seen):
        api.go_away()
        watcher = watch(is_synced=False, timing={"first_pause": 60.0, "longest_pause": 60.0})
        time.sleep(0.2)
        assert self.ends(watcher, seen)
        api.come_back()

    def test_nothing_is_left_over(self, api, tmp_path, seen):
        def open_files() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        kubeconfig = api.kubeconfig(tmp_path)
        with Watch(seen, kubeconfig=kubeconfig, timing=fast()) as watcher:
            assert is_watching(watcher)
        assert soon(lambda: not api._connections)
        before, threads = open_files(), threading.active_count()
        for _ in range(3):
            with Watch(seen, kubeconfig=kubeconfig, timing=fast()) as watcher:
                assert is_watching(watcher)
                api.disturb("services", DROP, HALF_LINE)
                assert is_watching(watcher, times=3)
        assert soon(lambda: not api._connections)
        assert open_files() <= before
        assert threading.active_count() <= threads

    def test_what_is_not_there_yet_is_named(self, api, watch):
        api.fail("services", *[Fault.status(500)] * 1000)
        watcher = watch(is_synced=False)
        watcher.refer_to(secrets=[TLS])
        assert soon(lambda: watcher.unanswered() == ("services",))
        assert not watcher.has_synced
        api.calm_down()
        assert soon(lambda: watcher.has_synced)
