"""The Dockerfile: pinned, plain, and with all that is needed at run time."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from rulegen import __version__
from rulegen.cli.engines.table import ENGINES
from rulegen.host.doctor.tools import TOOLS
from rulegen.host.nginx.facts import WORKER_USERS
from rulegen.host.proxy.sandbox.identity import PREFERRED
from tests.deploy.places import DEPLOY
from tests.project.places import ROOT, run
from tests.servers.fakeapi import FakeApi

TEXT = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Return the instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in text.splitlines())
        if word
    ]


def arguments(word: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == word]


def test_the_base_is_pinned_by_its_digest() -> None:
    (base,) = (argument.partition("=")[2] for argument in arguments("ARG") if argument.startswith("BASE="))

    assert re.fullmatch(r"debian:\d+\.\d+-slim@sha256:[0-9a-f]{64}", base)
    assert arguments("FROM") == ["${BASE} AS base", "base AS build", "base"]


def test_rulegen_is_started_without_a_shell() -> None:
    (entry,), (default,) = arguments("ENTRYPOINT"), arguments("CMD")

    assert json.loads(entry) == ["/opt/rulegen/bin/rulegen"]
    assert json.loads(default) == ["--help"]
    assert arguments("USER") == ["root"]


def test_nothing_is_fetched_past_the_package_managers() -> None:
    runs = " ".join(arguments("RUN"))

    assert arguments("ADD") == []
    assert not re.search(r"https?://|\bcurl\b|\bwget\b|\|\s*(ba)?sh\b", TEXT)
    for command in re.findall(r"apt-get install[^&]*", runs):
        assert "--yes --no-install-recommends" in command
    assert runs.count("apt-get update") == runs.count("rm -rf /var/lib/apt/lists/*") == runs.count("apt-get install")


def test_pip_takes_nothing_whose_hash_is_not_known() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install[^&]*", " ".join(arguments("RUN")))

    assert len(installs) == 3
    for command in installs:
        assert "--no-deps" in command
        assert "--require-hashes --no-deps --only-binary :all: -r requirements" in command or "--no-index" in command


SOURCES = """\
Types: deb
# http://archive.example/archive/debian/20260701T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
# http://archive.example/archive/debian-security/20260701T000000Z
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def with_snapshot(folder: Path, sources: str, snapshot: str) -> tuple[int, str, bool]:
    """Return what the first step of the image makes of apt's sources: its exit code, the sources, may they be old."""
    (folder / "sources.list.d").mkdir()
    (folder / "apt.conf.d").mkdir()
    file = folder / "sources.list.d/debian.sources"
    file.write_text(sources, encoding="utf-8")
    step = re.search(r"^RUN (if \[ -n .*?\n    fi)$", TEXT, re.MULTILINE | re.DOTALL)
    assert step

    done = run("sh", "-ec", step[1].replace("/etc/apt", str(folder)), SNAPSHOT=snapshot)

    return done.returncode, file.read_text(encoding="utf-8"), any((folder / "apt.conf.d").iterdir())


def test_packages_are_those_of_one_day(tmp_path: Path) -> None:
    (snapshot,) = (argument.partition("=")[2] for argument in arguments("ARG") if argument.startswith("SNAPSHOT="))
    assert re.fullmatch(r"20\d{6}T\d{6}Z", snapshot)

    code, made, may_be_old = with_snapshot(tmp_path, SOURCES, snapshot)

    assert (code, may_be_old) == (0, True)
    assert re.findall(r"^URIs: (.*)$", made, re.MULTILINE) == [
        f"http://archive.example/archive/{which}/{snapshot}" for which in ("debian", "debian-security")
    ]
    assert made.count("Signed-By:") == 2


def test_without_a_snapshot_the_sources_stay(tmp_path: Path) -> None:
    assert with_snapshot(tmp_path, SOURCES, "") == (0, SOURCES, False)


@pytest.mark.parametrize(
    "line", ["# http://archive.example/archive/debian-security/20260701T000000Z\n", "Types: deb\n"]
)
def test_a_base_of_which_not_all_can_be_pinned_ends_the_build(line: str, tmp_path: Path) -> None:
    sources = SOURCES.replace(line, "", 1) if line.startswith("#") else SOURCES + line

    code, *_ = with_snapshot(tmp_path, sources, "20261127T000000Z")

    assert code != 0


def test_the_tools_that_rulegen_runs_are_in_it() -> None:
    installed = set(" ".join(arguments("RUN")).split())
    needed = {
        "libnginx-mod-http-headers-more-filter",
        "iptables",
        "conntrack",
        "nginx-light",
        "kmod",
        "util-linux",
        "python3",
    }

    assert needed <= installed
    assert {tool.name for tool in (*TOOLS, *(tool for row in ENGINES.values() for tool in row.tools))} >= {
        "iptables-nft",
        "conntrack",
        "nginx",
        "modprobe",
    }  # what they bring


def test_nginx_has_a_user_of_its_own_there() -> None:
    """A process of the same user could read the keys that its workers hold in memory."""
    (made,) = (command for command in arguments("RUN") if "useradd" in command)
    uid = int(made.partition("--uid ")[2].split()[0])

    assert made.split()[-1] == WORKER_USERS[0]
    assert 2_000_200_000 < uid < PREFERRED.first  # neither a directory's, nor what the sandbox draws


def test_what_is_copied_is_there_and_makes_a_wheel() -> None:
    copied = {
        source
        for argument in arguments("COPY")
        if not argument.startswith("--from")
        for source in argument.split()[:-1]
    }
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)
    assert {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "LICENSE"} <= copied


_BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("kubernetes.aio", "kubernetes.client.api.", "kubernetes.client.models.")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from rulegen.cli.main import main
sys.exit(main())
"""


@pytest.mark.slow
def test_no_class_that_the_image_leaves_out_is_needed(tmp_path: Path) -> None:
    assert {"aio", "client/api", "client/models"} == set(re.findall(r" kubernetes/([\w/]+)", TEXT))
    with FakeApi() as api:
        api.put(
            "services",
            {
                "metadata": {"namespace": "shop", "name": "web"},
                "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]},
            },
        )
        kubeconfig = tmp_path / "kubeconfig"
        plugin = tmp_path / "plugin"
        credential = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": "secret"},
        }
        plugin.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
        plugin.chmod(0o755)
        written = yaml.safe_load(Path(api.kubeconfig(tmp_path)).read_text(encoding="utf-8"))
        written["users"][0]["user"] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        }
        kubeconfig.write_text(json.dumps(written), encoding="utf-8")
        options = ("--observed", "none", "--host", str(DEPLOY / "examples/host.yaml"), "--node", "web-1", "-o", "json")
        done = run(sys.executable, "-c", _BLOCKED, "plan", "--kubeconfig", kubeconfig, *options)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["services"].keys() == {"shop/web"}


def test_the_version_is_the_one_of_the_package() -> None:
    assert f"VERSION={__version__}" in arguments("ARG")
    assert f"rulegen:{__version__}" in TEXT
