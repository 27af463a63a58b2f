"""Files: the manifests and dumps that a command line names, read whole and with limits."""

from __future__ import annotations

import glob
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rulegen.errors import InputError
from rulegen.kube.documents import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_BYTES", "Source", "read_sources", "read_text"]

MAX_BYTES: Final = 512 * 1024 * 1024
MANIFEST_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
STDIN: Final = "-"
# A pipe that a shell has opened, as in `-f <(kustomize build)`; any other pipe may wait for a writer forever.
DESCRIPTORS: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


def read_sources(paths: Sequence[str], stdin: BinaryIO | None = None, *, max_bytes: int = MAX_BYTES) -> list[Source]:
    """Return the texts that paths name, each file once, in the order of the paths.

    Args:
        paths: Files; folders (all their `*.yaml`, `*.yml`, `*.json`, subfolders too, sorted, hidden ones left out);
            glob patterns; `-` for standard input.
        stdin: Standard input; the real one by default.
        max_bytes: The most that one file may hold.

    Raises:
        InputError: A path names nothing that can be read.
    """
    sources: list[Source] = []
    seen: set[Path] = set()
    for path in paths:
        if path == STDIN:
            if any(source.name == "stdin" for source in sources):
                raise InputError("-", "standard input can be read only once")
            sources.append(Source("stdin", _bounded((stdin or sys.stdin.buffer), "stdin", max_bytes)))
            continue
        for file in _files(path):
            try:
                real = file.resolve()
            except (OSError, RuntimeError):  # a loop of links, which reading it tells about
                real = file
            if real not in seen:
                seen.add(real)
                sources.append(Source(str(file), _read(file, max_bytes)))
    return sources


def read_text(path: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of one UTF-8 file.

    Raises:
        InputError: It cannot be read, or is not UTF-8.
    """
    content = _read(Path(path), max_bytes)
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(path, f"line {line}: not UTF-8 (byte {error.start + 1})") from None


def _files(path: str) -> Iterator[Path]:
    """Yield the files that one argument names."""
    named = Path(path)
    if not path:
        raise InputError("''", "is no file name")
    try:
        exists = named.exists() or named.is_symlink()
    except (OSError, ValueError) as error:
        raise InputError(path, _reason(error)) from None
    if exists:
        yield from _manifests(named) if named.is_dir() else [named]
        return
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207 - user's own pattern
    if not found:
        raise InputError(path, "no file matches" if glob.has_magic(path) else "no such file or folder")
    for match in found:
        yield from _manifests(Path(match)) if Path(match).is_dir() else [Path(match)]


def _manifests(folder: Path) -> Iterator[Path]:
    """Yield the manifests of a folder and its subfolders, sorted; links to folders are not followed (they may loop)."""
    try:
        found = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in MANIFEST_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        ]
    except OSError as error:
        raise InputError(str(folder), _reason(error)) from None
    if not found:
        raise InputError(str(folder), "no *.yaml, *.yml or *.json in this folder")
    yield from found


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and str(file).startswith(DESCRIPTORS)):
            raise InputError(str(file), f"is {_kind(mode)}, not a file")
        with file.open("rb") as stream:
            return _bounded(stream, str(file), max_bytes)
    except OSError as error:
        raise InputError(str(file), _reason(error)) from None


def _bounded(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(name, f"is larger than {max_bytes // 2**20} MiB")
    return content


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else str(error)
