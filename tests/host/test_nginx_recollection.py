"""What objects said when they were last read, on disk: for root alone, and believed only where it is sound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.proxy.disk.last_read import StoredObjects
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectKey, ObjectName
from tests.otheruser import NOBODY
from tests.rights import needs_root
from tests.strategies.ingresses import config_map, secret

CLASS = k.IngressClass(metadata=k.ObjectMeta(name="c"), spec=k.IngressClassSpec(controller="example.com/c"))
NAMESPACE = k.Namespace(metadata=k.ObjectMeta(name="shop", labels={"team": "shop"}))
OBJECTS = {
    ObjectKey("Secret", ObjectName("shop", "users")): secret("users", "shop", auth=b"u:x"),
    ObjectKey("ConfigMap", ObjectName("shop", "headers")): config_map("headers", {"X-A": "b"}, "shop"),
    ObjectKey("IngressClass", ObjectName("", "c")): CLASS,
    ObjectKey("Namespace", ObjectName("", "shop")): NAMESPACE,
}
USERS = next(iter(OBJECTS))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "known").iterdir()}


def test_another_process_knows_the_same(tmp_path):
    StoredObjects(tmp_path).keep(OBJECTS)
    other = StoredObjects(tmp_path)
    assert other.objects == OBJECTS
    assert not other.notes
    assert (tmp_path / "known").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "known").iterdir()} == {0o600}


def test_what_is_not_known_any_more_is_not_left_on_disk(tmp_path):
    known = StoredObjects(tmp_path)
    known.keep(OBJECTS)
    rest = {key: stored for key, stored in OBJECTS.items() if key != USERS}
    known.keep(rest)
    assert StoredObjects(tmp_path).objects == rest
    assert not any(b"users" in content for content in files(tmp_path).values())


def test_without_write_access_only_this_process_knows(tmp_path):
    known = StoredObjects(tmp_path, writes=False)
    known.keep(OBJECTS)
    assert known.objects == OBJECTS
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_written_is_written_the_next_time(tmp_path):
    known = StoredObjects(tmp_path / "nginx")
    with pytest.raises(HostError):
        known.keep(OBJECTS)
    (tmp_path / "nginx").mkdir()
    known.keep(OBJECTS)
    assert StoredObjects(tmp_path / "nginx").objects == OBJECTS


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b'{"kind":"Service","object":{}}'),
        lambda path: path.write_bytes(b'{"kind":"Secret","object":{"metadata":{"name":"../x"}}}'),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"users"', b'"other"')),
    ],
    ids=["empty", "cut", "another kind", "no name", "another name"],
)
def test_an_invalid_file_is_reported_and_ignored(tmp_path, spoil):
    StoredObjects(tmp_path).keep(OBJECTS)
    path = next(path for path in (tmp_path / "known").iterdir() if b'"users"' in path.read_bytes())
    spoil(path)
    known = StoredObjects(tmp_path)
    assert known.objects == {key: stored for key, stored in OBJECTS.items() if key != USERS}
    assert len(known.notes) == 1
    assert str(path) in known.notes[0]
    known.keep(dict(known.objects) | {USERS: secret("users", "shop", auth=b"u:y")})
    known.keep({})
    assert not files(tmp_path)


@needs_root
@pytest.mark.parametrize("right", ["owner", "mode"])
def test_a_file_that_others_may_write_to_is_not_believed(tmp_path, right):
    """Who owned the folder before may have left it there: a list of passwords, for one."""
    StoredObjects(tmp_path).keep(OBJECTS)
    path = next(path for path in (tmp_path / "known").iterdir() if b'"users"' in path.read_bytes())
    if right == "owner":
        os.chown(path, NOBODY, -1)
    else:
        path.chmod(0o620)
    known = StoredObjects(tmp_path)
    assert known.objects == {key: entry for key, entry in OBJECTS.items() if key != USERS}
    [note] = known.notes
    assert str(path) in note
    known.keep(OBJECTS)
    assert StoredObjects(tmp_path).objects == OBJECTS


def test_a_folder_that_others_may_write_to_is_not_believed(tmp_path):
    StoredObjects(tmp_path).keep(OBJECTS)
    (tmp_path / "known").chmod(0o777)
    known = StoredObjects(tmp_path)
    assert known.objects == {}
    assert "may be written to by others" in known.notes[0]
