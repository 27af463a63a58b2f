"""Reads the manifests and dumps that a command line names, completely and with limits."""

from __future__ import annotations

import errno
import glob
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from rulegen.errors import InputError
from rulegen.host.files.rendered import KUSTOMIZATIONS, rendering_of
from rulegen.kube.reading.documents import Source
from rulegen.safe_files import MIB, UnsuitableFileError, read_descriptor, read_regular, read_within, size_text
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rulegen.host.files.rendered import Renderer

__all__ = ["MAX_BYTES", "STDIN", "NoTextError", "Source", "are_from_stdin", "hint_of", "read_sources", "read_text"]

MAX_BYTES: Final = 64 * MIB
"""The largest uncompressed size of one manifest or dump, in bytes; 60,000 Services need less."""
MAX_TOTAL_BYTES: Final = 128 * MIB
"""The largest total size of all manifests, or of all dumps, of one command, in bytes."""
MAX_FILES: Final = 10_000
"""The most manifest files of one command."""
MAX_ENTRIES: Final = 200_000
"""The most entries of a folder and its subfolders."""
MANIFEST_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
STDIN: Final = "-"
"""The path for standard input."""
_GZIP: Final = b"\x1f\x8b\x08"
# A pipe that a shell has opened, as in `-f <(kustomize build)`; any other pipe may wait for a writer forever.
DESCRIPTORS: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


_URL: Final = "only files are read: `curl -fsSL URL | rulegen plan -f -`"
_CHECK_PATH: Final = "check the path: it is relative to the current folder"
_HINTS: Final = {
    errno.ENOENT: _CHECK_PATH,
    errno.ENOTDIR: _CHECK_PATH,
    errno.EACCES: "run as a user who can read it, or give another path",
    errno.EPERM: "run as a user who can read it, or give another path",
    errno.ELOOP: "give the path of the file itself, without links",
}
_IN_PARTS: Final = "give a folder that has only the manifests, or read the objects from the API server"
_STDIN_PATHS: Final = frozenset({STDIN, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})


def are_from_stdin(paths: Iterable[str | None]) -> bool:
    """Return whether one of the paths is standard input."""
    return not _STDIN_PATHS.isdisjoint(paths)


def read_sources(
    paths: Sequence[str],
    stdin: BinaryIO | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    max_total: int = MAX_TOTAL_BYTES,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Source]:
    """Return the texts of all files that the paths name, each file once, in the order of the paths.

    The own files of kustomize and Helm are no manifests; they are left out with a warning.

    Args:
        paths: Files; folders (all their `*.yaml`, `*.yml`, `*.json`, those of subfolders too, sorted; hidden ones and
            links to folders are left out); glob patterns; `-` for standard input. No link in a folder
            may lead out of it.
        stdin: Standard input; the real one by default.
        max_bytes: The largest size of one file.
        max_total: The largest total size.
        warn: Called with a line for each folder that another tool must render.

    Raises:
        InputError: A path does not exist, cannot be read, exceeds a limit, or has only files of such a tool.
    """
    sources: list[Source] = []
    left = max_total
    renderings: dict[Renderer, None] = {}
    seen: set[str] = set()
    for path in paths:
        if path == STDIN:
            if STDIN in seen:
                raise InputError("stdin", "can be read only once")
            seen.add(STDIN)
            sources.append(Source("stdin", _read_stdin(stdin, min(max_bytes, left))))
            left -= len(sources[-1].content)
            continue
        for file, folder in _files(path):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            if rendering := rendering_of(file):
                renderings[rendering] = None
                continue
            if len(sources) == MAX_FILES:
                raise InputError(_shown(path), f"more than {MAX_FILES} files of objects", hint=_IN_PARTS)
            content = _read(file, max_bytes, folder)
            left -= len(content)
            if left < 0:
                raise InputError(
                    _shown(file), f"together with the files before it, more than {size_text(max_total)}", hint=_IN_PARTS
                )
            sources.append(Source(_shown(file), content))
    for rendering in renderings:
        warn(rendering.warning())
    if renderings and not sources:
        raise _unrendered(next(iter(renderings)))
    return sources


def read_text(
    path: str,
    *,
    max_bytes: int = MAX_BYTES,
    takes_stdin: bool = False,
    stdin: BinaryIO | None = None,
    folder: str | None = None,
) -> str:
    """Return the text of one UTF-8 file; gzip files are decompressed.

    Args:
        path: The file.
        max_bytes: The largest size, compressed and uncompressed.
        takes_stdin: Whether `-` is standard input; else it is a file name.
        stdin: Standard input; the real one by default.
        folder: The folder in which it was found and that no link may leave; None for a file that a user named.

    Raises:
        NoTextError: The file is not UTF-8.
        InputError: The file cannot be read, or is too large.
    """
    is_stdin = takes_stdin and path == STDIN
    content = _read_stdin(stdin, max_bytes) if is_stdin else _read(Path(path), max_bytes, folder)
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NoTextError(_shown(path), f"line {line} is not UTF-8 (byte {error.start + 1})") from None


class NoTextError(InputError):
    """A file is not UTF-8 text."""


class _File(NamedTuple):
    """A file, and the folder that the user named."""

    path: Path
    folder: str | None = None


def _files(path: str) -> Iterator[_File]:
    """Yield the files that one argument names."""
    if not path or "\0" in path:
        raise InputError(_shown(path) or "''", "is not a file name")
    if os.path.lexists(path):
        yield from _manifests(path) if os.path.isdir(path) else [_File(Path(path))]  # noqa: PTH112 - pathlib raises
        return
    if not glob.has_magic(path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:  # the path may exist
            raise InputError(_shown(path), _reason(error), hint=hint_of(error)) from None
        hint = _URL if path.startswith(("https://", "http://")) else _CHECK_PATH
        raise InputError(_shown(path), "no such file or folder", hint=hint)
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - it takes absolute patterns, pathlib does not
    if not matches:
        raise InputError(_shown(path), "no file matches", hint="quote the pattern, and try it with ls")
    for match in matches:
        yield from _manifests(match) if os.path.isdir(match) else [_File(Path(match))]  # noqa: PTH112 - as above


def _unrendered(renderer: Renderer) -> InputError:
    return InputError(
        renderer.folder, f"has no manifest beside {renderer.marker}", hint=f"{renderer.command} | rulegen plan -f -"
    )


def _manifests(folder: str) -> Iterator[_File]:
    """Yield the manifests of a folder and its subfolders, sorted; links to folders are not followed (they may loop)."""
    manifests: list[Path] = []
    entries = 0
    for parent, folders, files in os.walk(folder, onerror=_raise):
        entries += len(folders) + len(files)
        if entries > MAX_ENTRIES:
            raise InputError(_shown(folder), f"more than {MAX_ENTRIES} files and folders in it", hint=_IN_PARTS)
        folders[:] = [name for name in folders if not name.startswith(".")]
        manifests += [
            Path(parent, name)
            for name in files
            if (Path(name).suffix.lower() in MANIFEST_SUFFIXES and not name.startswith(".")) or name in KUSTOMIZATIONS
        ]
    if not manifests:
        raise InputError(
            _shown(folder),
            "no *.yaml, *.yml or *.json in this folder",
            hint="name the folder or file that has the manifests",
        )
    yield from (_File(file, folder) for file in sorted(manifests))


def _raise(error: OSError) -> None:
    raise InputError(_shown(error.filename), _reason(error), hint=hint_of(error))


def _read(file: Path, max_bytes: int, folder: str | None = None) -> bytes:
    """Return the uncompressed content of a file; a file of a folder is read by `read_within`."""
    name = _shown(file)
    try:
        if (descriptor := _pipe_of_shell(file)) is not None:
            try:
                content = read_descriptor(descriptor, max_bytes, file)
            finally:
                os.close(descriptor)
        elif folder is not None:
            content = read_within(folder, file, max_bytes)
        else:
            content = read_regular(file, max_bytes, follow=True)
    except UnsuitableFileError as error:
        hint = "name the file itself" if "leads out" in str(error.strerror) else ""
        raise InputError(name, printable(error.strerror or "", 4096), hint=hint) from None
    except OSError as error:
        raise InputError(name, _reason(error), hint=hint_of(error)) from None
    except ValueError:  # the name contains NUL
        raise InputError(name, "is not a file name") from None
    return _unpacked(content, name, max_bytes)


def _pipe_of_shell(file: Path) -> int | None:
    """Return a descriptor of the pipe that a shell opened, as in `-f <(kustomize build)`; None for other files."""
    if not str(file).startswith(DESCRIPTORS) or not stat.S_ISFIFO(file.stat().st_mode):
        return None
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(descriptor, True)
    return descriptor


def _read_stdin(stdin: BinaryIO | None, max_bytes: int) -> bytes:
    stream = stdin if stdin is not None else getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("stdin", "is closed")
    try:
        return _bounded(stream, "stdin", max_bytes)
    except (OSError, ValueError) as error:
        raise InputError("stdin", _reason(error)) from None


def _bounded(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (part := stream.read(min(left, MIB))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise InputError(name, f"is larger than {size_text(max_bytes)}")
    return _unpacked(b"".join(parts), name, max_bytes)


def _unpacked(content: bytes, name: str, max_bytes: int) -> bytes:
    """Return the decompressed content of all gzip members; other content unchanged.

    Raises:
        InputError: The gzip data is broken or truncated, or has more than `max_bytes`.
    """
    if not content.startswith(_GZIP):
        return content
    parts: list[bytes] = []
    left = max_bytes + 1
    while content and left > 0:
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(content, left))
        except zlib.error as error:
            raise InputError(
                name, f"cannot be unpacked: {error}", hint="check that the gzip file is complete"
            ) from None
        left -= len(parts[-1])
        if not member.eof and left > 0:
            raise InputError(name, "the gzip file is incomplete", hint="copy the whole file again")
        content = member.unused_data.lstrip(b"\0")
    if left <= 0:
        raise InputError(name, f"is larger than {size_text(max_bytes)} unpacked")
    return b"".join(parts)


def hint_of(error: OSError) -> str:
    """Return the next step for a system error about a file that a user named."""
    return _HINTS.get(error.errno or 0, "")


def _shown(path: str | Path) -> str:
    """Return a file name in printable characters; file names are untrusted."""
    return printable(str(path), 4096)


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or "cannot be read").lower()
