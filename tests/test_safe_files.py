"""Files that others may have put in place of what is expected: refused at once, in words, without a look inside."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rulegen.apiserver.transport.client import ApiServer
from rulegen.apiserver.transport.tls import SharedTls
from rulegen.errors import ConfigError, HostError
from rulegen.host.files.watch import FileChanges
from rulegen.host.nginx.templates import MAX_FILES, read_templates
from rulegen.host.proxy.disk import default_certificate
from rulegen.safe_files import (
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
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


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
    def test_a_fifo_in_its_place_is_reported(self, tmp_path):
        os.mkfifo(tmp_path / default_certificate.NAME)
        with pytest.raises(HostError, match=r"default\.pem cannot be read: is a FIFO, not a file") as raised:
            default_certificate.load(tmp_path)
        assert "move" in raised.value.hint

    def test_a_link_in_its_place_is_neither_read_nor_written_through(self, tmp_path):
        a_link(tmp_path / default_certificate.NAME)
        with pytest.raises(HostError, match="is a symbolic link"):
            default_certificate.load(tmp_path)
        default_certificate.store(tmp_path, b"ours")
        assert (tmp_path / "secret").read_text() == "secret"


SERVER = "clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n"
KUBECONFIG = (
    f"apiVersion: v1\nkind: Config\n{SERVER}users: [{{name: a, user: {{token: x}}}}]\n"
    "contexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\n"
)


@pytest.mark.timeout(60)
class TestKubeconfig:
    @pytest.mark.parametrize(
        ("plant", "words"),
        [(a_fifo, "is a FIFO, not a file"), (a_folder, "is a folder, not a file"), (too_much, "is larger than 1 MiB")],
    )
    @pytest.mark.parametrize("by", ["option", "variable"])
    def test_that_is_none_is_refused_at_once(self, tmp_path, monkeypatch, plant, words, by):
        (tmp_path / "good").write_text(KUBECONFIG)
        plant(tmp_path / "bad")
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'good'}:{tmp_path / 'bad'}")
        with pytest.raises(HostError) as refused:
            ApiServer(str(tmp_path / "bad") if by == "option" else None)
        assert refused.value.message == f"kubeconfig {tmp_path / 'bad'}: {words}"

    @pytest.mark.parametrize("field", ["certificate-authority", "client-certificate", "client-key"])
    def test_of_which_a_file_is_none_is_refused_at_once(self, tmp_path, field):
        (tmp_path / "good.pem").write_bytes(default_certificate.make())
        names = dict.fromkeys(("certificate-authority", "client-certificate", "client-key"), "good.pem")
        too_much(tmp_path / "bad.pem")
        document = yaml.safe_load(KUBECONFIG)
        document["clusters"][0]["cluster"]["certificate-authority"] = names["certificate-authority"]
        document["users"][0]["user"] = {name: names[name] for name in ("client-certificate", "client-key")}
        for part in (document["clusters"][0]["cluster"], document["users"][0]["user"]):
            if field in part:
                part[field] = "bad.pem"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
        with pytest.raises(HostError, match=r"bad\.pem: is larger than 4 MiB"):
            ApiServer(str(tmp_path / "kubeconfig"))

    @pytest.mark.parametrize("spelling", ["{tokenFile: bad}", '{"tokenFile": "bad"}', "{tokenFile: 'bad'}"])
    def test_of_which_the_token_is_endless_is_refused_at_once(self, tmp_path, spelling):
        too_much(tmp_path / "bad")
        (tmp_path / "kubeconfig").write_text(KUBECONFIG.replace("{token: x}", spelling))
        with pytest.raises(HostError, match=r"kubeconfig: .*/bad: is larger than 64 KiB"):
            ApiServer(str(tmp_path / "kubeconfig"))


class TestTls:
    @pytest.mark.parametrize("field", ["ca_certs", "cert_file", "key_file"])
    def test_reads_no_file_that_has_grown_without_bounds(self, tmp_path, field):
        (tmp_path / "good.pem").write_bytes(default_certificate.make())
        too_much(tmp_path / "bad.pem")
        files = {name: str(tmp_path / "good.pem") for name in ("ca_certs", "cert_file", "key_file")}
        assert SharedTls({**files}).context()
        with pytest.raises(UnsuitableFileError, match="is larger than 4 MiB"):
            SharedTls({**files, field: str(tmp_path / "bad.pem")}).context()


class TestKeyWithAPassword:
    def test_is_an_error_and_asks_nobody(self, tmp_path):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (tmp_path / "both.pem").write_bytes(default_certificate.make().partition(b"-----BEGIN PRIVATE")[0] + private)
        shared = SharedTls({"cert_file": str(tmp_path / "both.pem"), "cert_reqs": ssl.CERT_NONE})
        with pytest.raises(OSError):
            shared.context()


class TestTemplates:
    @pytest.mark.parametrize(
        ("plant", "words"),
        [
            (a_fifo, "is a FIFO, not a file"),
            (a_folder, "is a folder, not a file"),
            (too_much, "is larger than 1 MiB"),
            (lambda path: path.symlink_to("/etc/hostname"), "is a link that leads out of"),
        ],
    )
    def test_that_are_none_are_refused_at_once(self, tmp_path, plant, words):
        plant(tmp_path / "nginx.conf.j2")
        with pytest.raises(ConfigError, match=words):
            read_templates(str(tmp_path))

    def test_are_not_read_in_thousands(self, tmp_path):
        for number in range(MAX_FILES + 1):
            (tmp_path / f"{number}.j2").write_text("")
        with pytest.raises(ConfigError, match="more than 100 templates"):
            read_templates(str(tmp_path))


class TestFileChanges:
    @pytest.mark.parametrize("plant", [a_fifo, too_much])
    def test_see_what_is_no_file_any_more_and_do_not_wait_for_it(self, tmp_path, plant):
        (tmp_path / "configuration").write_text("a")
        changed = threading.Event()
        changes = FileChanges([str(tmp_path / "configuration")], period_s=0.01, settled_s=0.01)
        changes.start(changed.set)
        (tmp_path / "configuration").unlink()
        plant(tmp_path / "configuration")
        assert changed.wait(30)
        changes.stop()
