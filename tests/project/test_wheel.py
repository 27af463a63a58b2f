"""The wheel: built without a network, installed somewhere else, it is all there and starts fast."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rulegen import KUBE_PROXY, __version__
from tests.project.places import ROOT, run

pytestmark = pytest.mark.xdist_group("wheel")

SLOW = {"kubernetes", "pyroute2", "docker", "iptc", "jinja2", "urllib3", "asyncio"}
"""What takes long to load, and no help text needs."""

COMMANDS = ("plan", "apply", "export", "cleanup", "doctor", "demo")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it."""
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it alone, its dependencies stay where they are; return the folder."""
    folder = tmp_path_factory.mktemp("installed")
    done = run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_ROOT_USER_ACTION="ignore",
    )
    assert done.returncode == 0, done.stderr
    return folder


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed rulegen's Python, from a folder in which there is no checkout."""
    return run(sys.executable, "-W", "error", *arguments, cwd=installed, PYTHONPATH=str(installed))


@pytest.mark.not_quick
def test_the_wheel_holds_package_templates_and_manifests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        license_text = archive.read(f"rulegen-{__version__}.dist-info/licenses/LICENSE")

    for folder, place in (
        ("nginx_templates", "rulegen/nginx_templates"),
        ("deploy/examples", "rulegen/demo/manifests"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                assert f"{place}/{path.relative_to(ROOT / folder).as_posix()}" in names
    for path in (ROOT / "rulegen").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    assert "rulegen/py.typed" in names
    assert license_text == (ROOT / "LICENSE").read_bytes()
    assert not [name for name in names if name.partition("/")[0] not in {"rulegen", f"rulegen-{__version__}.dist-info"}]


@pytest.mark.slow
def test_the_version_is_said_once(installed: Path) -> None:
    done = python(installed, "-m", "rulegen", "--version")

    assert (done.returncode, done.stdout) == (0, f"rulegen {__version__} (rules of kube-proxy {KUBE_PROXY})\n")
    assert (installed / f"rulegen-{__version__}.dist-info").is_dir()


@pytest.mark.slow
def test_the_command_is_installed(installed: Path) -> None:
    done = python(installed, str(installed / "bin" / "rulegen"), "--help")

    assert done.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.slow
def test_the_demo_finds_its_manifests(installed: Path) -> None:
    done = python(installed, "-c", "from rulegen.demo.examples import folder; print(folder())")

    assert done.stdout == f"{installed}/rulegen/demo/manifests\n"


@pytest.mark.slow
def test_an_installed_rulegen_plans(installed: Path) -> None:
    examples = installed / "rulegen" / "demo" / "manifests"
    files = ("-f", str(examples / "my-blog"), "--config", str(examples / "config.yaml"))
    done = python(
        installed, *("-m", "rulegen", "plan", *files, "--host", str(examples / "host.yaml"), "--observed", "none", "-v")
    )

    assert done.returncode == 0, done.stderr
    assert "Service default/my-blog (NodePort; endpoints from Pods)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_slow(installed: Path, command: str) -> None:
    source = f"""
import atexit, json, sys
from rulegen.cli.main import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
main({[*command.split(), "--help"]!r})
"""
    done = python(installed, "-c", source)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: rulegen")
    assert not SLOW & set(json.loads(done.stderr.splitlines()[-1]))
