"""How an API server is reached: configuration, credentials, TLS and proxies; and how trouble with them is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.errors import HostError, Warnings
from tests.apiserver.answers import names, service
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi
from tests.servers.forwardproxy import ForwardProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("alone")


class TestCredentials:
    @pytest.fixture
    def api(self) -> Iterator[FakeApi]:
        with FakeApi(token="secret") as fake:
            fake.put("services", service("web"))
            yield fake

    def test_a_token_is_brought(self, api, tmp_path):
        assert names(read_cluster(api.kubeconfig(tmp_path))) == ["web"]

    def test_a_token_that_ends_with_a_line_feed_is_one(self, api, tmp_path):
        assert names(read_cluster(api.kubeconfig(tmp_path, user={"token": "secret\n"}))) == ["web"]

    @pytest.mark.parametrize("token", ["hush\nhush", "hush\u2028", "hush\u00e9", "hush\0"])
    def test_an_invalid_token_is_reported_without_its_text(self, api, tmp_path, token):
        link = ApiConnection(api.kubeconfig(tmp_path, user={"token": token}))
        with pytest.raises(ApiError) as lines:
            link.fetch("/api/v1/services", doing="list services")
        assert lines.value.reason is ApiReason.CREDENTIALS
        assert "hush" not in lines.value.message + lines.value.hint

    def test_a_wrong_token_is_reported(self, api, tmp_path):
        with pytest.raises(HostError, match="rejects the credentials") as caught:
            read_cluster(api.kubeconfig(tmp_path, user={"token": "wrong"}))
        assert "wrong" not in caught.value.message

    @staticmethod
    def plugin(folder: Path, text: str) -> dict:
        script = folder / "plugin.py"
        script.write_text(text)
        version = "client.authentication.k8s.io/v1"
        return {"exec": {"apiVersion": version, "command": sys.executable, "args": [str(script)]}}

    def test_a_plugin_gives_a_token(self, api, tmp_path):
        user = self.plugin(
            tmp_path,
            "import json\nprint(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1',"
            " 'kind': 'ExecCredential', 'status': {'token': 'secret'}}))",
        )
        assert names(read_cluster(api.kubeconfig(tmp_path, user=user))) == ["web"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("import sys; sys.exit('no login')", "no login"),
            ("print('hello')", "failed to decode process output"),
            ("print('{}')", "missing key 'apiVersion'"),
        ],
    )
    def test_a_failed_plugin_is_reported(self, api, tmp_path, text, expected):
        with pytest.raises(HostError, match=expected) as caught:
            read_cluster(api.kubeconfig(tmp_path, user=self.plugin(tmp_path, text)))
        assert caught.value.message.startswith("credentials of the kubeconfig: exec: ")

    def test_a_missing_plugin_is_reported(self, api, tmp_path):
        user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}}
        with pytest.raises(HostError, match="no-such-plugin"):
            read_cluster(api.kubeconfig(tmp_path, user=user))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class TestTls:
    @pytest.fixture
    def api(self, certificate) -> Iterator[FakeApi]:
        with FakeApi(certificate=certificate) as fake:
            fake.put("services", service("web"))
            yield fake

    def test_a_certificate_that_is_vouched_for(self, api, tmp_path, certificate):
        kubeconfig = api.kubeconfig(tmp_path, **{"certificate-authority": str(certificate[0])})
        assert names(read_cluster(kubeconfig)) == ["web"]

    def test_one_that_nobody_vouches_for(self, api, tmp_path):
        with pytest.raises(HostError, match=r"TLS: .*certificate verify failed") as caught:
            read_cluster(api.kubeconfig(tmp_path))
        assert "_ssl.c" not in caught.value.message

    def test_verification_turned_off_is_warned_of(self, api, tmp_path):
        warnings = Warnings()
        kubeconfig = api.kubeconfig(tmp_path, **{"insecure-skip-tls-verify": True})
        assert names(read_cluster(kubeconfig, warnings=warnings)) == ["web"]
        assert "not verified" in warnings.texts()[0]

    def test_an_authority_that_is_no_certificate(self, api, tmp_path):
        (tmp_path / "ca.crt").write_text("hello")
        with pytest.raises(HostError, match="127"):
            read_cluster(api.kubeconfig(tmp_path, **{"certificate-authority": str(tmp_path / "ca.crt")}))

    def test_plain_http_to_a_tls_port(self, api, tmp_path):
        with pytest.raises(HostError):
            read_cluster(api.kubeconfig(tmp_path, server=api.url.replace("https", "http")))


class TestProxy:
    @pytest.mark.parametrize(("login", "lines"), [("", ""), ("node:a b@c", "node:a%20b%40c@")])
    def test_one_that_the_kubeconfig_names_with_its_login(self, tmp_path, certificate, login, lines):
        with FakeApi(certificate=certificate) as api, ForwardProxy(login) as proxy:
            api.put("services", service("web"))
            cluster = {"certificate-authority": str(certificate[0]), "proxy-url": f"http://{lines}{proxy.address}"}
            assert names(read_cluster(api.kubeconfig(tmp_path, **cluster))) == ["web"]
            assert proxy.asked
            assert {f"https://{each}" for each in proxy.asked} == {api.url}

    def test_one_that_the_environment_names_and_hosts_that_need_none(self, tmp_path, certificate, monkeypatch):
        kubeconfig = {"certificate-authority": str(certificate[0])}
        with FakeApi(certificate=certificate) as api, ForwardProxy() as proxy:
            api.put("services", service("web"))
            monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
            assert names(read_cluster(api.kubeconfig(tmp_path, **kubeconfig))) == ["web"]
            assert not proxy.asked
            monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
            assert names(read_cluster(api.kubeconfig(tmp_path, **kubeconfig))) == ["web"]
            assert proxy.asked

    @pytest.mark.parametrize(
        "url", ["socks5://n:secret@127.0.0.1:1", "ftp://n:secret@h", "http://n:secret@127.0.0.1:1"]
    )
    def test_one_that_cannot_be_used_is_one_line_without_its_login(self, api, tmp_path, url):
        with pytest.raises(HostError, match=r"[Pp]roxy") as caught:
            read_cluster(api.kubeconfig(tmp_path, **{"proxy-url": url}))
        assert "\n" not in caught.value.message
        assert "secret" not in str(caught.value)


class TestConfiguration:
    def test_none_at_all(self):
        with pytest.raises(HostError, match="no cluster to read from") as caught:
            read_cluster()
        assert "-f" in caught.value.hint

    def test_for_a_user_without_a_home(self, monkeypatch):
        def unknown(_: int) -> None:
            raise KeyError("uid not found")

        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", unknown)
        with pytest.raises(HostError, match="no cluster to read from"):
            read_cluster()

    def test_the_environment_names_it(self, api, tmp_path, monkeypatch):
        api.put("services", service("web"))
        monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path))
        assert names(read_cluster()) == ["web"]

    def test_the_default_place(self, api, tmp_path):
        api.put("services", service("web"))
        (tmp_path / ".kube").mkdir()
        Path(api.kubeconfig(tmp_path)).rename(tmp_path / ".kube" / "config")
        assert names(read_cluster()) == ["web"]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "[]",
            "a: [",
            "\0",
            "{clusters: 1}",
            "users: {}\ncontexts: 7",
            "current-context: x",
            "a: &a [*a]",
        ],
    )
    def test_files_that_are_none(self, tmp_path, text):
        (tmp_path / "config").write_text(text)
        with pytest.raises(HostError) as caught:
            read_cluster(str(tmp_path / "config"))
        assert "\n" not in caught.value.message
        assert str(tmp_path / "config") in caught.value.message

    def test_a_server_that_is_no_url(self, api, tmp_path):
        with pytest.raises(HostError, match="server 'nonsense' is not a URL"):
            read_cluster(api.kubeconfig(tmp_path, server="nonsense"))

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(HostError, match="no such file"):
            read_cluster(str(tmp_path / "absent"))

    def test_a_context_that_is_not_there(self, api, tmp_path):
        with pytest.raises(HostError, match="absent"):
            read_cluster(api.kubeconfig(tmp_path), "absent")

    def test_in_a_pod_the_service_account_is_taken(self, monkeypatch):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
        with pytest.raises(HostError, match="the service account of this Pod: Service token file does not exist"):
            read_cluster()
