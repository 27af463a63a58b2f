"""Files that others may have put in place of what is expected: refused at once, in words, without a look inside."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from rulegen.errors import HostError
from rulegen.host.nginx import default_certificate
from rulegen.host.opening import (
    UnsuitableFileError,
    folder_at,
    made_folder_at,
    open_regular,
    read_kernel_text,
    read_regular,
    read_within,
    write_at,
)
from tests.rights import needs_root

MANY = 1 << 20


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    secret = path.with_name("secret")
    secret.write_text("secret")
    path.symlink_to(secret)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def too_much(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


class TestReading:
    @pytest.mark.parametrize(
        ("plant", "words"),
        [
            (a_fifo, "is a FIFO, not a file"),
            (a_link, "is a symbolic link"),
            (a_folder, "is a folder, not a file"),
            (a_socket, "is a socket, not a file"),
            (too_much, "is larger than 1 MiB"),
        ],
    )
    def test_refuses_at_once(self, tmp_path, plant, words):
        plant(tmp_path / "file")
        with pytest.raises(UnsuitableFileError) as refused:
            read_regular(tmp_path / "file", MANY)
        assert refused.value.strerror == words

    def test_opens_no_device_even_by_a_link(self, tmp_path):
        (tmp_path / "file").symlink_to("/dev/zero")
        with pytest.raises(UnsuitableFileError, match="is a device, not a file"):
            read_regular(tmp_path / "file", MANY, follow=True)

    def test_follows_a_link_only_where_asked_to(self, tmp_path):
        a_link(tmp_path / "file")
        assert read_regular(tmp_path / "file", MANY, follow=True) == b"secret"

    def test_of_a_fifo_behind_a_link(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "file").symlink_to("fifo")
        with pytest.raises(UnsuitableFileError, match="is a FIFO"):
            read_regular(tmp_path / "file", MANY, follow=True)

    def test_takes_just_the_bound(self, tmp_path):
        (tmp_path / "file").write_bytes(b"x" * 10)
        assert read_regular(tmp_path / "file", 10) == b"x" * 10
        with pytest.raises(UnsuitableFileError, match="is larger than 9 bytes"):
            read_regular(tmp_path / "file", 9)

    def test_bounds_what_tells_no_size(self):
        assert Path("/proc/self/mounts").stat().st_size == 0
        with pytest.raises(UnsuitableFileError, match="is larger than 5 bytes"):
            read_kernel_text("/proc/self/mounts", 5)

    def test_leaves_no_descriptor_open(self, tmp_path):
        a_folder(tmp_path / "folder")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(OSError):
                read_regular(tmp_path / "folder", MANY)
            with pytest.raises(FileNotFoundError):
                read_regular(tmp_path / "none", MANY)
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_is_relative_to_a_folder_that_is_held(self, tmp_path):
        a_folder(tmp_path / "held")
        (tmp_path / "held" / "file").write_bytes(b"held")
        with folder_at(tmp_path / "held") as held:
            (tmp_path / "held").rename(tmp_path / "moved")
            a_folder(tmp_path / "held")
            (tmp_path / "held" / "file").write_bytes(b"another")
            assert read_regular("file", MANY, dir_fd=held) == b"held"


class TestWithin:
    def test_follows_the_links_of_a_mounted_configmap(self, tmp_path):
        (tmp_path / "..2026").mkdir()
        (tmp_path / "..2026" / "a.yaml").write_bytes(b"a")
        (tmp_path / "..data").symlink_to("..2026")
        (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
        assert read_within(tmp_path, tmp_path / "a.yaml", MANY) == b"a"

    @pytest.mark.parametrize("target", ["../outside", "/etc/hostname", "../folder-beside/file"])
    def test_follows_none_that_leads_out(self, tmp_path, target):
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "outside").write_text("secret")
        (tmp_path / "folder-beside").mkdir()
        (tmp_path / "folder-beside" / "file").write_text("secret")
        (folder / "a.yaml").symlink_to(target)
        with pytest.raises(UnsuitableFileError, match="is a link that leads out of"):
            read_within(folder, folder / "a.yaml", MANY)


class TestWriting:
    def test_replaces_a_link_and_leaves_what_it_led_to(self, tmp_path):
        a_link(tmp_path / "file")
        with folder_at(tmp_path) as folder:
            write_at("file", b"ours", 0o640, dir_fd=folder)
        assert (tmp_path / "secret").read_text() == "secret"
        assert (tmp_path / "file").read_bytes() == b"ours"
        assert stat.S_IMODE((tmp_path / "file").lstat().st_mode) == 0o640
        assert {path.name for path in tmp_path.iterdir()} == {"file", "secret"}

    def test_of_a_folder_in_place_of_the_file_leaves_nothing_behind(self, tmp_path):
        (tmp_path / "file" / "full").mkdir(parents=True)
        with folder_at(tmp_path) as folder, pytest.raises(IsADirectoryError):
            write_at("file", b"ours", 0o640, dir_fd=folder)
        assert {path.name for path in tmp_path.iterdir()} == {"file"}

    @pytest.mark.parametrize("plant", [a_fifo, a_link, a_socket])
    def test_makes_no_folder_through_what_is_in_its_place(self, tmp_path, plant):
        plant(tmp_path / "folder")
        with (
            folder_at(tmp_path) as above,
            pytest.raises(UnsuitableFileError, match="not a folder"),
            made_folder_at("folder", 0o700, dir_fd=above),
        ):
            pass

    def test_gives_a_new_folder_its_mode_whatever_the_umask(self, tmp_path):
        before = os.umask(0o077)
        try:
            with folder_at(tmp_path) as above, made_folder_at("folder", 0o755, dir_fd=above):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


@needs_root
def test_a_device_of_a_number_of_its_own_is_not_opened(tmp_path):
    os.mknod(tmp_path / "file", stat.S_IFCHR | 0o600, os.makedev(10, 130))  # the watchdog's
    with pytest.raises(UnsuitableFileError, match="is a device, not a file"):
        open_regular(tmp_path / "file")


class TestDefaultCertificate:
    def test_a_fifo_in_its_place_is_told(self, tmp_path):
        os.mkfifo(tmp_path / default_certificate.NAME)
        with pytest.raises(HostError, match=r"default\.pem cannot be read: is a FIFO, not a file") as told:
            default_certificate.load(tmp_path)
        assert "move" in told.value.hint

    def test_a_link_in_its_place_is_neither_read_nor_written_through(self, tmp_path):
        a_link(tmp_path / default_certificate.NAME)
        with pytest.raises(HostError, match="is a symbolic link"):
            default_certificate.load(tmp_path)
        default_certificate.store(tmp_path, b"ours")
        assert (tmp_path / "secret").read_text() == "secret"
