"""Keeps the last readable content of objects on disk, for other processes and later starts.

    DIR/known/<hash>.json    one for each object, 0600 in a folder that is ours alone

Releases have the served configuration; this folder has the content of objects that may become unreadable later.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.errors import HostError, Rejected
from rulegen.host.files.trust import check_ours, read_ours
from rulegen.host.proxy.disk.writing import hint, reason, write_new
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, IngressClass, Namespace, Secret
from rulegen.kube.reading.decode import decode_object
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rulegen.model.ingress.last_read import KnownObject

FOLDER: Final = "known"
MAX_FILE: Final = 8 << 20
_KINDS: Final = {kind.__name__: kind for kind in (ConfigMap, IngressClass, Namespace, Secret)}


class _RecordHead(msgspec.Struct):
    kind: str = ""


@dataclass(slots=True)
class StoredObjects:
    """The last readable objects, in the folder of one proxy.

    Attributes:
        home: DIR.
        writes: Whether changes are written; else only this process has them.
        notes: Warnings for the user.
    """

    home: Path
    writes: bool = True
    notes: list[str] = field(default_factory=list)
    _has_failed: bool = False
    _known: dict[ObjectKey, KnownObject] | None = None

    @property
    def objects(self) -> Mapping[ObjectKey, KnownObject]:
        """The known objects, read from disk at first use; unreadable files are noted and left out."""
        if self._known is None:
            self._known = {}
            for path in self._files():
                try:
                    key, known = _read(path)
                except (HostError, OSError) as error:
                    message = error.message if isinstance(error, HostError) else reason(error)
                    self.notes.append(f"{path}: {printable(message)}: its content is unknown")
                else:
                    self._known[key] = known
        return self._known

    def keep(self, objects: Mapping[ObjectKey, KnownObject]) -> None:
        """Replace the known objects by these, and write the differences.

        Raises:
            HostError: A file cannot be written; this process knows the objects nevertheless.
        """
        before, self._known = self.objects, dict(objects)
        if not self.writes or (before == objects and not self._has_failed):
            return
        written, self._has_failed = {} if self._has_failed else before, True
        try:
            folder = self.home / FOLDER
            if objects and not folder.is_dir():
                folder.mkdir(mode=0o700)
            if folder.is_dir():
                check_ours(folder)
            for key, known in objects.items():
                if written.get(key) != known:
                    self._write(folder / _name(key), known)
            names = {_name(key) for key in objects}
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in names:
                    path.unlink()
            self._has_failed = False
        except OSError as error:
            raise HostError(
                f"the last known objects cannot be saved: {reason(error, self.home)}", hint=hint(error)
            ) from None

    def _files(self) -> list[Path]:
        folder = self.home / FOLDER
        try:
            check_ours(folder)
            return sorted(path for path in folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []
        except OSError as error:
            self.notes.append(f"{reason(error)}: its content is unknown")
            return []

    @staticmethod
    def _write(path: Path, known: KnownObject) -> None:
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        write_new(partial, msgspec.json.encode({"kind": type(known).__name__, "object": known}), 0o600, os.getegid())
        partial.rename(path)


def _name(key: ObjectKey) -> str:
    return f"{hashlib.sha256(str(key).encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> tuple[ObjectKey, KnownObject]:
    raw = read_ours(path, MAX_FILE)
    try:
        kind = _KINDS[msgspec.json.decode(raw, type=_RecordHead).kind]
        body = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])["object"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        raise HostError("it contains no object") from None
    decoded = decode_object(body, kind, source=str(path))
    if isinstance(decoded, Rejected):
        raise HostError("; ".join(decoded.lines()))
    known = decoded.object
    if not isinstance(known, ConfigMap | IngressClass | Namespace | Secret):
        raise HostError("it contains no object")
    metadata = known.metadata
    key = ObjectKey(
        kind.__name__, ObjectName("" if kind in {IngressClass, Namespace} else metadata.namespace, metadata.name)
    )
    if path.name != _name(key):
        raise HostError(f"it contains {key}, but its name is not that of the file for this object")
    return key, known
