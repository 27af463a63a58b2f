"""Files: the manifests and dumps that a command line names, read whole and with limits."""

from __future__ import annotations

import glob
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rulegen.errors import InputError
from rulegen.host.rendered import KUSTOMIZATIONS, rendering_of
from rulegen.kube.documents import Source
from rulegen.kube.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rulegen.host.rendered import Rendering

__all__ = ["MAX_BYTES", "STDIN", "Source", "are_from_stdin", "read_sources", "read_text"]

MAX_BYTES: Final = 512 * 1024 * 1024
MANIFEST_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
STDIN: Final = "-"
"""The path that stands for standard input."""
_GZIP: Final = b"\x1f\x8b\x08"
# A pipe that a shell has opened, as in `-f <(kustomize build)`; any other pipe may wait for a writer forever.
DESCRIPTORS: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


_STDIN_PATHS: Final = frozenset({STDIN, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})


def are_from_stdin(paths: Iterable[str | None]) -> bool:
    """Return whether one of the paths is standard input; None is no path."""
    return not _STDIN_PATHS.isdisjoint(paths)


def read_sources(
    paths: Sequence[str],
    stdin: BinaryIO | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Source]:
    """Return the texts that paths name, each file once, in the order of the paths.

    Files by which kustomize and Helm know a folder are no manifests: they are left out with a warning.

    Args:
        paths: Files; folders (all their `*.yaml`, `*.yml`, `*.json`, those of subfolders too, sorted; hidden ones and
            links to folders are left out); glob patterns; `-` for standard input.
        stdin: Standard input; the real one by default.
        max_bytes: The most that one file may hold.
        warn: Receives a line for each folder that another tool has to render.

    Raises:
        InputError: A path names nothing, something that cannot be read, or only files of such a tool.
    """
    sources: list[Source] = []
    renderings: dict[Rendering, None] = {}
    seen: set[str] = set()
    for path in paths:
        if path == STDIN:
            if STDIN in seen:
                raise InputError("stdin", "can be read only once")
            seen.add(STDIN)
            sources.append(Source("stdin", _read_stdin(stdin, max_bytes)))
            continue
        for file in _files(path):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            if rendering := rendering_of(file):
                renderings[rendering] = None
            else:
                sources.append(Source(_shown(file), _read(file, max_bytes)))
    for rendering in renderings:
        warn(rendering.warning())
    if renderings and not sources:
        first = next(iter(renderings))
        raise InputError(
            first.folder, f"has no manifest beside {first.marker}", hint=f"{first.command} | rulegen plan -f -"
        )
    return sources


def read_text(
    path: str, *, max_bytes: int = MAX_BYTES, takes_stdin: bool = False, stdin: BinaryIO | None = None
) -> str:
    """Return the text of one UTF-8 file, unpacked where gzip has packed it.

    Args:
        path: The file.
        max_bytes: The most that it may hold, packed or not.
        takes_stdin: Whether `-` is standard input; else it is a file of that name.
        stdin: Standard input; the real one by default.

    Raises:
        InputError: It cannot be read, or is not UTF-8.
    """
    is_stdin = takes_stdin and path == STDIN
    content = _read_stdin(stdin, max_bytes) if is_stdin else _read(Path(path), max_bytes)
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(_shown(path), f"line {line} is not UTF-8 (byte {error.start + 1})") from None


def _files(path: str) -> Iterator[Path]:
    """Yield the files that one argument names."""
    if not path or "\0" in path:
        raise InputError(_shown(path) or "''", "is no file name")
    if os.path.lexists(path):
        yield from _manifests(path) if os.path.isdir(path) else [Path(path)]  # noqa: PTH112 - pathlib raises here
        return
    if not glob.has_magic(path):
        raise InputError(
            _shown(path), "no such file or folder", hint="is the path right, seen from the current folder?"
        )
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - it takes absolute patterns, pathlib does not
    if not matches:
        raise InputError(_shown(path), "no file matches", hint="quote the pattern, and try it with ls")
    for match in matches:
        yield from _manifests(match) if os.path.isdir(match) else [Path(match)]  # noqa: PTH112 - as above


def _manifests(folder: str) -> Iterator[Path]:
    """Yield the manifests of a folder and its subfolders, sorted; links to folders are not followed (they may loop)."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if (Path(name).suffix.lower() in MANIFEST_SUFFIXES and not name.startswith(".")) or name in KUSTOMIZATIONS
        ]
    if not found:
        raise InputError(
            _shown(folder),
            "no *.yaml, *.yml or *.json in this folder",
            hint="name the folder or file that has the manifests",
        )
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise InputError(_shown(error.filename), _reason(error))


def _read(file: Path, max_bytes: int) -> bytes:
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and str(file).startswith(DESCRIPTORS)):
            raise InputError(_shown(file), f"is {_kind(mode)}, not a file")
        with file.open("rb") as stream:
            return _bounded(stream, _shown(file), max_bytes)
    except OSError as error:
        raise InputError(_shown(file), _reason(error)) from None
    except ValueError:  # a NUL in the name
        raise InputError(_shown(file), "is no file name") from None


def _read_stdin(stdin: BinaryIO | None, max_bytes: int) -> bytes:
    stream = stdin if stdin is not None else getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("stdin", "is closed")
    try:
        return _bounded(stream, "stdin", max_bytes)
    except (OSError, ValueError) as error:
        raise InputError("stdin", _reason(error)) from None


def _bounded(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    content = stream.read(max_bytes + 1)
    if len(content) <= max_bytes and content.startswith(_GZIP):
        content = _unpacked(content, name, max_bytes)
    if len(content) > max_bytes:
        raise InputError(name, f"is larger than {max_bytes / 2**20:.4g} MiB")
    return content


def _unpacked(content: bytes, name: str, max_bytes: int) -> bytes:
    """Return what gzip has packed, all members of it; at most one byte more than may be.

    Raises:
        InputError: It is broken, or a part is missing.
    """
    parts: list[bytes] = []
    left = max_bytes + 1
    while content and left > 0:
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(content, left))
        except zlib.error as error:
            raise InputError(name, f"cannot be unpacked: {error}", hint="is the whole gzip file there?") from None
        left -= len(parts[-1])
        if not member.eof and left > 0:
            raise InputError(name, "the gzip file breaks off", hint="copy the whole file again")
        content = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"


def _shown(path: str | Path) -> str:
    """Return a file's name as it may stand in a message: names of files are untrusted bytes too."""
    return printable(str(path), 4096)


def _reason(error: OSError | ValueError) -> str:
    told = error.strerror if isinstance(error, OSError) else str(error)
    return (told or "cannot be read").lower()
