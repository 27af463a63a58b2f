"""What the image installs with pip: exact versions, those of constraints.txt, and a hash for every file."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import pinned
from tests.project.places import run

FILES = [pinned.RUN_TIME, pinned.BUILD_TIME]
ENTRY = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def entries(text: str) -> list[tuple[str, str, list[str]]]:
    """Return name, version and hashes of each package; anything else but comments is an error."""
    body = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    assert ENTRY.sub("", body) == ""
    return [(name, version, re.findall(r"[0-9a-f]{64}", hashes)) for name, version, hashes in ENTRY.findall(body)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_installed_packages_match_constraints_txt(file: Path) -> None:
    pins = pinned.versions()
    _, names = pinned.wanted()[file]

    required = entries(file.read_text(encoding="utf-8"))

    assert [(name, version) for name, version, _ in required] == [pins[name] for name in sorted(names)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_hash_is_there_twice_and_no_index_is_named(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    hashes = [digest for _, _, listed in entries(text) for digest in listed]

    assert len(hashes) == len(set(hashes))
    assert not re.search(r"://|index-url|find-links|--trusted-host", text)


def test_what_the_wheel_requires_is_what_is_installed() -> None:
    """The wheel is installed without its dependencies, which are installed before it."""
    _, names = pinned.wanted()[pinned.RUN_TIME]

    assert {"click", "cryptography", "jinja2", "kubernetes", "msgspec", "pyroute2", "pyyaml"} <= names
    assert not names & {"pytest", "ruff", "mypy", "docker", "hatchling"}


@contextmanager
def an_index(files: dict[str, bytes], *, version: str = "1.0") -> Iterator[str]:
    """Serve an index that has these files of each package, as PEP 691 says."""

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = [
                {"filename": filename, "url": f"/{filename}", "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}
                for filename, content in files.items()
            ]
            body = json.dumps({"meta": {"api-version": "1.0"}, "name": self.path, "files": listed}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


WHEEL, SDIST = "a_package-1.0-py3-none-any.whl", "a_package-1.0.tar.gz"
OTHERS = {"a_package-1.0.1.tar.gz": b"newer", "a_package-1.0-py2.7.egg": b"egg", "a_package-1.0.exe": b"installer"}


def test_a_version_has_the_hashes_of_its_files_and_of_no_others() -> None:
    with an_index({WHEEL: b"wheel", SDIST: b"sdist", **OTHERS}) as url:
        hashes = pinned.hashes("a-package", "1.0", url)

    assert hashes == sorted(hashlib.sha256(content).hexdigest() for content in (b"wheel", b"sdist"))


def test_a_version_that_the_index_does_not_have_is_an_error() -> None:
    with (
        an_index(OTHERS) as url,
        pytest.raises(pinned.PinError, match=r"a-package: the index has no file of version 1\.0$"),
    ):
        pinned.hashes("a-package", "1.0", url)


def test_a_package_that_nobody_pinned_is_an_error() -> None:
    with pytest.raises(pinned.PinError, match=r"not in constraints\.txt: no-such-package"):
        pinned.text("", {"no-such-package"}, "")


@pytest.mark.slow
def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """As the image has it: pip with these options takes no file but those whose hashes are written down."""
    wheel = tmp_path / WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
        archive.writestr("a_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("a_package-1.0.dist-info/RECORD", "")
    options = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-index", "--find-links", tmp_path)

    def install(digest: str) -> tuple[int, str]:
        file = tmp_path / "requirements.txt"
        file.write_text(f"a-package==1.0 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
        done = run(
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--no-cache-dir",
            *options,
            "-r",
            file,
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_CONFIG_FILE="/dev/null",
        )
        return done.returncode, done.stderr

    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    code, said = install(right)
    assert code == 0, said
    code, said = install("0" * 64)
    assert code == 1
    assert "DO NOT MATCH THE HASHES" in said
