"""`rulegen run --ingress` beside an API server that is slow, silent or refuses; clients ask nginx all the time."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.agent import until
from integration.agents.test_agent_site import Site, served
from integration.ingress import certificates, objects

pytestmark = [
    pytest.mark.xdist_group("agent"),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed"),
]

HOSTS = tuple(f"h{number}.test" for number in range(8))
SETTINGS = objects.CONTROLLER_CONFIG.split("/")
RESTRICTED = objects.config_map(SETTINGS[1], {"whitelist-source-range": "192.0.2.0/24"}, SETTINGS[0])
OPTIONS = ("--configmap", objects.CONTROLLER_CONFIG, "--keep-serving")


def name_of(host: str) -> str:
    return host.partition(".")[0]


def tls_secret(host: str) -> tuple[objects.Document, str]:
    """Return a Secret with a new certificate for a host, and the certificate's fingerprint."""
    pem = certificates.certificate(host)
    data = {"tls.crt": pem, "tls.key": certificates.key_pem()}
    return objects.secret(name_of(host), "kubernetes.io/tls", data), hashlib.sha256(certificates.der(pem)).hexdigest()


def shown(host: str) -> str:
    """Return the fingerprint of the certificate that a client is shown; empty where it is shown none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", 443), 5) as plain,
            context.wrap_socket(plain, server_hostname=host) as s,
        ):
            return hashlib.sha256(s.getpeercert(binary_form=True) or b"").hexdigest()
    except (OSError, ConnectionError):
        return ""


def status(host: str) -> int:
    """Return what a client without a password is answered over HTTP; 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class Asking:
    """Asks nginx for all hosts, again and again.

    Attributes:
        certificates: What clients were shown, by host; an empty text for no TLS.
        statuses: What clients of `shut.test` and `plain.test` were answered.
    """

    def __init__(self) -> None:
        self.certificates: dict[str, set[str]] = {host: set() for host in HOSTS}
        self.statuses: dict[str, set[int]] = {"shut.test": set(), "plain.test": set()}
        self._ended = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for host, certificate in self.certificates.items():
                certificate.add(shown(host))
            for host, answers in self.statuses.items():
                answers.add(status(host))


@pytest.fixture
def site() -> Iterator[Site]:
    with served() as results:
        results.options = (*results.options, *OPTIONS)
        api = results.node.api
        results.right = {}
        for host in HOSTS:
            document, results.right[host] = tls_secret(host)
            api.put("secrets", document)
            api.put("ingresses", objects.ingress(name_of(host), host, secret=name_of(host)))
        api.put("secrets", objects.secret("users", "Opaque", {"auth": certificates.htpasswd({"u": "p"})}))
        open_to_all = {"whitelist-source-range": "0.0.0.0/0"}
        shut = {"auth-type": "basic", "auth-secret": "users", **open_to_all}
        api.put(
            "ingresses", objects.ingress("shut", "shut.test", annotations=shut), objects.ingress("plain", "plain.test")
        )
        api.put("configmaps", RESTRICTED)
        yield results


@contextmanager
def starting(site: Site) -> Iterator[None]:
    """Have an agent begin, that is not well yet."""
    process = site.node.start(*site.options)
    try:
        yield
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0, site.node.log.read_text()


def all_right(site: Site) -> bool:
    return {host: shown(host) for host in HOSTS} == site.right


def test_a_first_start_begins_when_all_is_answered(site: Site) -> None:
    api, asking = site.node.api, Asking()
    for collection, name in (("secrets", name_of(HOSTS[0])), ("secrets", "users"), ("configmaps", SETTINGS[1])):
        api.hush(collection, name)
    with starting(site), asking.going_on():
        until(lambda: "from the API server" in str(site.node.health()[1]), 20, "says that it waits")
        assert site.node.health()[0] == 503
        time.sleep(1.0)
        assert not (site.folder / "current").exists()
        api.speak()
        until(lambda: all_right(site), 20, "all certificates")
        until(lambda: site.node.health()[0] == 200, 5, "is well")
    assert all(certificate <= {"", site.right[host]} for host, certificate in asking.certificates.items())
    assert asking.statuses["shut.test"] <= {0, 401}
    assert asking.statuses["plain.test"] <= {0, 403}
    assert not site.node.lines("does not exist")


def test_a_restart_beside_a_silent_server_changes_nothing(site: Site) -> None:
    api, asking = site.node.api, Asking()
    with site.node.running(*site.options):
        until(lambda: all_right(site) and status("shut.test") == 401, 30, "all is served")
    api.hush("secrets", "users", *(name_of(host) for host in HOSTS[::2]))
    api.hush("configmaps", SETTINGS[1])
    with asking.going_on(), site.node.running(*site.options):
        api.put("ingresses", objects.ingress("more", "more.test"))  # what is known is served meanwhile
        until(lambda: any("more.test" in text for text in site.files().values()), 30, "a new host")
        assert site.node.lines("waiting for objects that could not be read")
        assert site.node.health()[0] == 200
        until(lambda: asking.certificates.get(HOSTS[0]), 10, "its certificate is seen")
        renewed, fingerprint = tls_secret(HOSTS[0])
        api.put("secrets", renewed)
        api.speak()
        until(lambda: shown(HOSTS[0]) == fingerprint, 20, "what came")
        until(lambda: fingerprint in asking.certificates[HOSTS[0]], 20, "the client is shown it, too")
        until(lambda: site.node.lines("all objects were read"), 10, "says so")
    assert asking.certificates.pop(HOSTS[0]) == {site.right[HOSTS[0]], fingerprint}
    assert all(certificate == {site.right[host]} for host, certificate in asking.certificates.items())
    assert asking.statuses == {"shut.test": {401}, "plain.test": {403}}
    assert len(site.node.lines("waiting for objects that could not be read")) == 1
    assert not site.node.lines("does not exist")


def test_what_keeps_others_out_and_is_deleted_keeps_them_out(site: Site) -> None:
    api, asking = site.node.api, Asking()
    with site.node.running(*site.options):
        until(lambda: status("plain.test") == 403 and status("shut.test") == 401, 30, "all is served")
        with asking.going_on():
            api.delete("configmaps", *SETTINGS)
            until(lambda: site.node.lines("it was deleted: its last known content stays in use"), 10, "says so")
            api.delete("ingressclasses", "", "rulegen")
            api.delete("secrets", "default", "users")
            until(lambda: status("shut.test") == 503, 10, "closed")
    with site.node.running(*site.options):
        until(lambda: site.node.lines("it was deleted: its last known content stays in use"), 20, "says so again")
        assert (status("plain.test"), status("shut.test")) == (403, 503)
    assert asking.statuses["plain.test"] == {403}
    assert asking.statuses["shut.test"] <= {401, 503}


def test_forbidden_secrets_keep_no_other_host_from_being_served(site: Site) -> None:
    api = site.node.api
    api.allows = lambda verb: verb[2] != "secrets"
    with site.node.running(*site.options):
        until(lambda: status("plain.test") == 403, 30, "all others are served")
        assert status("shut.test") == 503
        assert {shown(host) for host in HOSTS} == {""}
        assert len(site.node.lines("waiting for objects that could not be read")) == 1
        assert not site.node.lines("does not exist")
