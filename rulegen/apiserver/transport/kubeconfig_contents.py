"""The contents of a kubeconfig: which context, cluster and user it selects, or what is missing.

The official client has its own messages for missing parts, prints whole entries with their secrets, and uses a cluster
with other credentials if the user is missing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.apiserver.transport.failures import one_line
from rulegen.errors import HostError
from rulegen.safe_files import read_regular
from rulegen.text import listed

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE: Final = 4 << 20
ANOTHER: Final = "give the path of a kubeconfig with --kubeconfig, or read manifests with -f"
_VIEW: Final = "`kubectl config view` shows a kubeconfig; --kubeconfig FILE selects another one"
_EXPECTED: Final = "expected a mapping with clusters, contexts and users"


class KubeconfigPart(NamedTuple):
    """A context, cluster or user, and the file that has it. File names in it are relative to this file."""

    path: Path
    values: dict[str, Any]


class SelectedParts(NamedTuple):
    """What a kubeconfig selects."""

    cluster: KubeconfigPart
    user: KubeconfigPart


def selected_parts(paths: list[Path], context: str | None) -> SelectedParts:
    """Return the cluster and the user of a context.

    Args:
        paths: The files. If several have an entry of a name, the first one counts.
        context: The name of the context; the current one by default.

    Raises:
        HostError: A file is not a kubeconfig, or the context is not complete.
    """
    documents = [(path, _read(path)) for path in paths]
    where = f"kubeconfig {one_line(':'.join(map(str, paths)))}"
    name = context or next((each for _, document in documents if (each := document.get("current-context"))), None)
    names = {part: _names(documents, part) for part in ("context", "cluster", "user")}
    choice = f"--context NAME selects one of: {listed(names['context'])}" if names["context"] else _VIEW
    if not name:
        raise HostError(f"{where}: it has no current-context", hint=choice)
    if (chosen := _named(documents, "context", name)) is None:
        raise HostError(f"{where}: there is no context {one_line(name)}", hint=choice)
    parts = {}
    for part in ("cluster", "user"):
        wanted = chosen.values.get(part)
        found_part = _named(documents, part, wanted) if wanted else None
        if found_part is None and (wanted or part == "cluster"):
            missing = f"there is no {part} {one_line(wanted)}" if wanted else f"it names no {part}"
            there = f"; {part}s: {listed(names[part])}" if names[part] else ""
            raise HostError(f"{where}: context {one_line(name)}: {missing}{there}", hint=choice)
        parts[part] = found_part or KubeconfigPart(chosen.path, {})
    return SelectedParts(**parts)


def why_absent(names: list[str]) -> str:
    """Return why none of the files can be seen: their folder may be closed to this user."""
    for name in names:
        try:
            os.stat(os.path.expanduser(name))  # noqa: PTH111, PTH116 - as the client does it
        except PermissionError as error:
            return str(error.strerror)
        except (OSError, ValueError):
            continue
    return "no such file"


def _read(path: Path) -> dict[str, Any]:
    """Return the document of a kubeconfig with lists of named entries.

    Raises:
        HostError: It is not a kubeconfig.
    """
    import yaml  # noqa: PLC0415 - only for the client's sake

    where = f"kubeconfig {one_line(path)}"
    try:
        document = yaml.safe_load(read_regular(path, MAX_FILE, follow=True).decode("utf-8"))
    except OSError as error:
        raise HostError(f"{where}: {one_line(error.strerror or error)}", hint=ANOTHER) from error
    except UnicodeDecodeError:
        raise HostError(f"{where}: it is not text in UTF-8", hint=ANOTHER) from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        words = one_line(", ".join(filter(None, (error.context, error.problem))))
        raise HostError(f"{where}: {line}not YAML: {words}", hint=_VIEW) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise HostError(f"{where}: {_EXPECTED}", hint=_VIEW) from None
    if document is None:
        raise HostError(f"{where}: it is empty", hint=_VIEW)
    if not isinstance(document, dict):
        raise HostError(f"{where}: {_EXPECTED}", hint=_VIEW)
    if document.get("kind", "Config") != "Config":
        raise HostError(f"{where}: it is a {one_line(document['kind'])}, not a kubeconfig", hint=ANOTHER)
    for part in ("context", "cluster", "user"):
        entries = document.get(f"{part}s")
        if not isinstance(entries, list | None):
            raise HostError(f"{where}: {part}s: expected a list", hint=_VIEW)
        for place, entry in enumerate(entries or ()):
            if not isinstance(entry, dict) or "name" not in entry:
                raise HostError(f"{where}: {part}s[{place}]: expected a mapping with name and {part}", hint=_VIEW)
    return document


def _names(documents: list[tuple[Path, dict[str, Any]]], part: str) -> list[str]:
    return list(dict.fromkeys(one_line(each["name"]) for _, document in documents for each in _entries(document, part)))


def _named(documents: list[tuple[Path, dict[str, Any]]], part: str, name: object) -> KubeconfigPart | None:
    """Return the first entry of a name.

    Raises:
        HostError: It is empty.
    """
    for path, document in documents:
        for entry in _entries(document, part):
            if entry["name"] != name:
                continue
            if not isinstance(entry.get(part), dict):
                raise HostError(f"kubeconfig {one_line(path)}: {part} {one_line(name)}: expected a mapping", hint=_VIEW)
            return KubeconfigPart(path, entry[part])
    return None


def _entries(document: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return document.get(f"{part}s") or []
