"""What a kubeconfig has us run and read: within bounds, and not at all where that is forbidden."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rulegen.apiserver.budget import Budget
from rulegen.apiserver.limits import ApiTerms
from rulegen.apiserver.lists import read_cluster
from rulegen.apiserver.transport import kubeconfig
from rulegen.apiserver.transport.connection import ApiConnection
from rulegen.apiserver.watch import Watch
from rulegen.errors import HostError, Warnings
from tests.fakes.certificates import make_certificate
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_EXEC = ApiTerms(exec_plugins=False)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as fake:
        yield fake


def plugin(text: str) -> dict[str, Any]:
    """Return a user whose credentials a program provides."""
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": sys.executable, "args": ["-c", text]}}


def has_ended(pid: int) -> bool:
    """Tell whether a process runs no longer; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class TestPlugins:
    def test_one_that_prints_for_ever_is_ended(self, api, tmp_path):
        user = plugin("import sys\nwhile True: sys.stdout.write('x' * 65536)")
        with pytest.raises(HostError, match="more than 1048576 bytes of output"):
            read_cluster(api.kubeconfig(tmp_path, user=user))

    @pytest.mark.not_quick
    def test_one_that_complains_for_ever_is_ended(self, api, tmp_path, monkeypatch):
        monkeypatch.setattr(kubeconfig, "PLUGIN_S", 1.0)
        user = plugin("import sys\nwhile True: sys.stderr.write('x' * 65536)")
        with pytest.raises(HostError, match="did not end within 1 s and was killed"):
            read_cluster(api.kubeconfig(tmp_path, user=user))

    def test_one_that_never_ends_is_killed_with_what_it_has_started(self, api, tmp_path, monkeypatch):
        """A child would hold the pipe open for as long as it lives."""
        monkeypatch.setattr(kubeconfig, "PLUGIN_S", 2.0)
        pids = tmp_path / "pids"
        user = plugin(
            "import os, time\nchild = os.fork()\n"
            f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
        )
        with pytest.raises(HostError, match="did not end within 2 s and was killed"):
            read_cluster(api.kubeconfig(tmp_path, user=user))
        problem = [int(line) for line in pids.read_text().split()]
        until = time.monotonic() + 30
        while not all(map(has_ended, problem)) and time.monotonic() < until:
            time.sleep(0.05)
        assert problem
        assert all(map(has_ended, problem))

    def test_one_that_leaves_a_child_behind_is_taken_at_its_word(self, api, tmp_path):
        """The child keeps neither the pipe open for us, nor lives on."""
        api.token = "secret"
        line = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": "secret"},
        }
        leaves = "import os, time\nif os.fork() == 0:\n  os.close(1); os.close(2); time.sleep(600)\n"
        text = f"{leaves}print({json.dumps(line)!r})"
        assert read_cluster(api.kubeconfig(tmp_path, user=plugin(text))) == []

    def test_one_line_of_its_error_output_is_reported(self, api, tmp_path):
        user = plugin("import sys\nsys.stderr.write('no login ' * 100_000)\nsys.exit(3)")
        with pytest.raises(HostError, match=r"exec: process returned 3\. no login") as caught:
            read_cluster(api.kubeconfig(tmp_path, user=user))
        assert len(caught.value.message) < 1000

    @pytest.mark.parametrize(
        "text", ["[" * 100_000, '{"apiVersion": 1}', "[1]", '{"status": {}, "kind": 1, "apiVersion": 7}']
    )
    def test_nonsense_is_one_line(self, api, tmp_path, text):
        with pytest.raises(HostError, match="credentials of the kubeconfig: exec: ") as caught:
            read_cluster(api.kubeconfig(tmp_path, user=plugin(f"print({text!r})")))
        assert len(caught.value.message) < 500


class TestForbidden:
    @pytest.mark.parametrize(
        "user",
        [
            plugin("open('ran', 'w')"),
            {"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/touch", "cmd-args": "ran"}}},
        ],
        ids=["exec", "auth-provider"],
    )
    @pytest.mark.parametrize("by_environment", [False, True])
    def test_no_program_runs(self, api, tmp_path, monkeypatch, user, by_environment):
        monkeypatch.chdir(tmp_path)
        config = api.kubeconfig(tmp_path, user=user)
        if by_environment:
            monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{config}")
        with pytest.raises(HostError, match="--no-exec forbids this") as caught:
            read_cluster(None if by_environment else config, budget=Budget(NO_EXEC))
        assert "token" in caught.value.hint
        with pytest.raises(HostError, match="--no-exec forbids this"):
            ApiConnection(None if by_environment else config, terms=NO_EXEC)
        assert not (tmp_path / "ran").exists()
        assert api.requests == []

    def test_the_user_of_another_context_does_not_matter(self, api, tmp_path):
        path = Path(api.kubeconfig(tmp_path))
        document = json.loads(path.read_text())
        document["users"].append({"name": "other", "user": plugin("1")})
        document["contexts"].append({"name": "other", "context": {"cluster": "test", "user": "other"}})
        path.write_text(json.dumps(document))
        assert read_cluster(str(path), budget=Budget(NO_EXEC)) == []
        with pytest.raises(HostError, match="--no-exec forbids this"):
            read_cluster(str(path), "other", budget=Budget(NO_EXEC))


class TestTokenFiles:
    def test_a_fifo_is_not_waited_for(self, api, tmp_path):
        os.mkfifo(tmp_path / "token")
        with pytest.raises(HostError, match=r"tokenFile: .*token"):
            read_cluster(api.kubeconfig(tmp_path, user={"tokenFile": "token"}))

    def test_a_huge_one_is_not_read(self, api, tmp_path):
        with (tmp_path / "token").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(HostError, match=r"tokenFile: .*token"):
            read_cluster(api.kubeconfig(tmp_path, user={"tokenFile": str(tmp_path / "token")}))

    def test_a_link_to_one_is_followed_as_kubernetes_makes_them(self, api, tmp_path):
        api.token = "secret"
        (tmp_path / "real").write_text("secret\n")
        (tmp_path / "token").symlink_to("real")
        assert read_cluster(api.kubeconfig(tmp_path, user={"tokenFile": "token"})) == []


class TestClearText:
    LINE = "credentials go over the network in clear text"

    def said(self, config: str) -> list[str]:
        """Return what a command and `run` say; both the same."""
        warnings, said = Warnings(), []
        read_cluster(config, warnings=warnings)
        Watch(lambda _: None, kubeconfig=config, warn=said.append)
        assert said == list(warnings.texts())
        return said

    @pytest.mark.parametrize("user", [{"token": "t"}, {"username": "u", "password": "p"}], ids=["token", "password"])
    def test_credentials_over_http_are_one_warning(self, api, tmp_path, user):
        [line] = self.said(api.kubeconfig(tmp_path, user=user))
        assert line.startswith(f"{api.url}: {self.LINE}")

    def test_a_client_certificate_is_one_too(self, api, tmp_path):
        certificate, key = make_certificate(tmp_path)
        [line] = self.said(
            api.kubeconfig(tmp_path, user={"client-certificate": str(certificate), "client-key": str(key)})
        )
        assert line.startswith(f"{api.url}: the client certificate is not used")

    def test_without_credentials_there_is_nothing_to_warn_of(self, api, tmp_path):
        assert self.said(api.kubeconfig(tmp_path)) == []

    def test_https_is_none(self, tmp_path):
        certificate = make_certificate(tmp_path)
        with FakeApi(certificate=certificate, token="t") as api:
            assert self.said(api.kubeconfig(tmp_path, **{"certificate-authority": str(certificate[0])})) == []
