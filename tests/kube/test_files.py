"""Paths give the texts of files, or an error of one clear line."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rulegen.errors import InputError
from rulegen.host.files.manifests import read_sources, read_text

KIND = b"kind: x\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.yaml", "a.yml", "c.json", "D.YAML", "notes.txt", ".hidden.yaml", "sub/e.yaml", ".git/f.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(*paths: str) -> list[str]:
    return [source.name for source in read_sources(paths)]


PATHS = [
    (["b.yaml"], ["b.yaml"]),
    (["notes.txt"], ["notes.txt"]),
    ([".hidden.yaml"], [".hidden.yaml"]),
    (["b.yaml", "a.yml"], ["b.yaml", "a.yml"]),
    (["b.yaml", "./b.yaml", "sub/../b.yaml"], ["b.yaml"]),
    (["sub"], ["sub/e.yaml"]),
    (["."], ["D.YAML", "a.yml", "b.yaml", "c.json", "sub/e.yaml"]),
    (["*.yaml"], ["b.yaml"]),
    (["*.y*ml"], ["a.yml", "b.yaml"]),
    (["**/*.yaml"], ["b.yaml", "sub/e.yaml"]),
    (["s?b"], ["sub/e.yaml"]),
    (["[ab].y*"], ["a.yml", "b.yaml"]),
    (["c.json", "."], ["c.json", "D.YAML", "a.yml", "b.yaml", "sub/e.yaml"]),
    ([], []),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("paths", "expected"), PATHS)
def test_paths(paths: list[str], expected: list[str]) -> None:
    assert names(*paths) == expected


def test_a_file_whose_name_looks_like_a_pattern(here: Path) -> None:
    (here / "[x].yaml").write_bytes(KIND)
    assert names("[x].yaml") == ["[x].yaml"]


def test_links_are_followed_to_files_and_not_to_folders(here: Path) -> None:
    (here / "link.yaml").symlink_to("notes.txt")
    (here / "sub" / "loop").symlink_to(here)
    assert names(".")[-2:] == ["link.yaml", "sub/e.yaml"]


def test_one_file_by_two_names_is_read_once(here: Path) -> None:
    (here / "link.yaml").symlink_to("b.yaml")
    assert names("b.yaml", "link.yaml") == ["b.yaml"]


def test_standard_input() -> None:
    (source,) = read_sources(["-"], io.BytesIO(KIND))
    assert source == ("stdin", KIND)
    with pytest.raises(InputError, match="stdin: can be read only once"):
        read_sources(["-", "-"], io.BytesIO(KIND))


@pytest.mark.not_quick
def test_a_pipe_that_a_shell_has_opened() -> None:
    """For example `-f <(kustomize build)`."""
    script = (
        "import sys; from rulegen.host.files.manifests import read_sources;"
        " print(read_sources(sys.argv[1:])[0].content)"
    )
    command = f"{sys.executable} -c '{script}' <(echo kind: x)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(KIND)


BAD_PATHS = [
    ("missing.yaml", "missing.yaml: no such file or folder"),
    ("sub/missing.yaml", "sub/missing.yaml: no such file or folder"),
    ("b.yaml/x", "b.yaml/x: no such file or folder"),
    ("*.toml", "*.toml: no file matches"),
    ("", "'': is not a file name"),
    ("a\0b", r"a\x00b: is not a file name"),
    ("x\n\x1b]2J", r"x\n\x1b]2J: no such file or folder"),
    ("x" * 300, "x" * 300 + ": file name too long"),
    ("empty", "empty: no *.yaml, *.yml or *.json in this folder"),
    ("pipe", "pipe: is a FIFO, not a file"),
    ("socket", "socket: is a socket, not a file"),
    ("/dev/null", "/dev/null: is a device, not a file"),
    ("/dev/zero", "/dev/zero: is a device, not a file"),
    ("broken", "broken: no such file or directory"),
    ("loop", "loop: too many levels of symbolic links"),
    ("large.yaml", "large.yaml: is larger than 1 MiB"),
    ("traps", "traps/pipe.yaml: is a FIFO, not a file"),
    ("dangling", "dangling/x.yaml: no such file or directory"),
]


@pytest.mark.parametrize(("path", "line"), BAD_PATHS)
def test_bad_paths(here: Path, path: str, line: str) -> None:
    for folder in ("empty", "traps", "dangling"):
        (here / folder).mkdir()
    os.mkfifo("pipe")
    os.mkfifo("traps/pipe.yaml")
    (here / "broken").symlink_to("nowhere")
    (here / "dangling/x.yaml").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    (here / "large.yaml").write_bytes(b"#" * (2**20 + 1))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError) as raised:
            read_sources([path], max_bytes=2**20)
    assert str(raised.value) == line


@pytest.mark.not_quick
def test_unreadable(here: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become nobody")
    script = """
import os, sys
from rulegen.errors import InputError
from rulegen.host.files.manifests import read_sources
os.setuid(65534)
for path in sys.argv[1:]:
    try:
        read_sources([path])
    except InputError as error:
        print(error)
"""
    for name in ("b.yaml", "sub"):
        (here / name).chmod(0)
    here.chmod(0o755)
    command = [sys.executable, "-c", script, "b.yaml", "sub", ".", "c.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"{path}: permission denied" for path in ("b.yaml", "sub", "./sub")]


def test_names_that_are_no_text(here: Path) -> None:
    raw = os.fsencode(here) + b"/\xff.yaml"
    Path(os.fsdecode(raw)).write_bytes(KIND)
    assert names("*\udcff.yaml") == [r"\udcff.yaml"]
    assert r"\udcff.yaml" in names(".")


def test_largest(here: Path) -> None:
    (here / "x.yaml").write_bytes(b"#" * 100)
    assert len(read_sources(["x.yaml"], max_bytes=100)[0].content) == 100
    with pytest.raises(InputError, match="is larger than"):
        read_sources(["-"], io.BytesIO(b"#" * 101), max_bytes=100)


def test_text(here: Path) -> None:
    (here / "t").write_bytes(b"\xef\xbb\xbfa\xc3\xbc\n")
    assert read_text("t") == "aü\n"
    (here / "t").write_bytes(b"a\nb\xff")
    with pytest.raises(InputError, match=r"t: line 2 is not UTF-8 \(byte 4\)"):
        read_text("t")
    for path, line in (
        ("nope", "nope: no such file or directory"),
        (".", r"\.: is a folder, not a file"),
        ("a\0", "not a file name"),
    ):
        with pytest.raises(InputError, match=line):
            read_text(path)


RENDERED = [
    # files, what is read, the command in the warning
    (["app/kustomization.yaml", "app/web.yaml"], ["app/web.yaml"], ["kubectl kustomize app"]),
    (["app/kustomization.yml", "app/web.yaml"], ["app/web.yaml"], ["kubectl kustomize app"]),
    (["app/Kustomization", "app/web.yaml"], ["app/web.yaml"], ["kubectl kustomize app"]),
    (["app/base/kustomization.yaml", "app/base/a.yaml"], ["app/base/a.yaml"], ["kubectl kustomize app/base"]),
    (
        ["app/base/kustomization.yaml", "app/base/a.yaml", "app/prod/kustomization.yaml"],
        ["app/base/a.yaml"],
        ["kubectl kustomize app/base", "kubectl kustomize app/prod"],
    ),
    (
        ["app/Chart.yaml", "app/values.yaml", "app/values-prod.yaml", "app/templates/web.yaml"],
        ["app/templates/web.yaml"],
        ["helm template app"],
    ),
    (["app/values.yaml", "app/web.yaml"], ["app/values.yaml", "app/web.yaml"], []),
    (["app/web.yaml"], ["app/web.yaml"], []),
]


@pytest.mark.parametrize(("files", "read", "commands"), RENDERED)
@pytest.mark.parametrize("path", ["app", "app/*", "./app/"], ids=["folder", "each-file", "folder-as-path"])
def test_a_folder_for_another_tool_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], read: list[str], commands: list[str], path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(KIND)
    warnings: list[str] = []
    paths = files if "*" in path else [path]
    assert sorted(os.path.normpath(source.name) for source in read_sources(paths, warn=warnings.append)) == sorted(read)
    assert [any(f"use: {command} | rulegen plan -f -" in text for text in warnings) for command in commands] == [
        True
    ] * len(commands)
    assert len(warnings) == len(commands)


@pytest.mark.parametrize(
    ("marker", "command"),
    [("kustomization.yaml", "kubectl kustomize 'my app'"), ("Chart.yaml", "helm template 'my app'")],
)
def test_a_folder_with_only_another_tools_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my app").mkdir()
    (tmp_path / "my app" / marker).write_bytes(KIND)
    with pytest.raises(InputError, match="has no manifest beside") as error:
        read_sources(["my app"])
    assert error.value.hint == f"{command} | rulegen plan -f -"
