"""The lab: a node that serves Ingresses, a client, and pods that tell what they were asked."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from integration.ingress import certificates, objects, spaces
from integration.ingress.asking import Asker, Request
from integration.ingress.expectations import Facts, wrongs
from integration.ingress.forms.requests import Jars, send
from integration.ingress.node import Node
from integration.ingress.objects import Document
from integration.lab.hosts import LabError
from integration.lab.peers import PeerHost

NAMES = {"backend.dns.test": "10.244.255.1"}
"""What the lab's name server knows."""

_PORTS = (80, 443, 8080, 8443)
PYTHON = (sys.executable, "-S", "-E")
PROGRAMS = Path(__file__).parent / "programs"
_START_S = 10


class IngressLab:
    """A node and who asks it.

    Attributes:
        node: The node.
        client: Asks from the client's address.
        folder: A folder that is the same outside and on every host.
    """

    def __init__(self, hosts: Mapping[str, PeerHost], folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder
        self.node = Node(hosts["node"], folder / "nginx", folder / "objects.json")
        self.client = Asker(hosts["client"].wire.pid, spaces.NODE)
        self._folders = count()
        self._nodes = [self.node]
        (folder / "pods.pem").write_bytes(certificates.certificate("pod") + certificates.key_pem())
        self._ports: set[int] = set()
        names = [f"{name}={address}" for name, address in NAMES.items()]
        hosts["pods"].popen([*PYTHON, str(PROGRAMS / "names.py"), spaces.NAME_SERVER, *names])
        self.listen(_PORTS)

    def listen(self, ports: Iterable[int]) -> None:
        """Have the pods answer on these ports too, from now on."""
        new = set(ports) - self._ports
        if not new:
            return
        certificate = str(self.folder / "pods.pem")
        self.hosts["pods"].popen([*PYTHON, str(PROGRAMS / "pods.py"), certificate, *map(str, sorted(new))])
        self._ports |= new
        deadline = time.monotonic() + _START_S
        for port in new:
            while not self._is_open(port):
                if time.monotonic() > deadline:
                    raise LabError(f"the pods do not listen on {port}")
                time.sleep(0.02)

    def _is_open(self, port: int) -> bool:
        try:
            self.client.connect(port, "10.244.0.1").close()
        except ConnectionError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<ingress lab in {self.folder}>"

    def close(self) -> None:
        """End the client; what runs on the hosts ends with them."""
        self.client.close()

    def occupy(self, node: Node) -> Node:
        """Have a node's nginx be the only one: who had the ports before is ended."""
        self.vacate(node)
        return node

    def vacate(self, keep: Node | None = None) -> None:
        """End every nginx that rulegen started here, but one's."""
        for other in self._nodes:
            if other is not keep:
                other.end()

    @contextmanager
    def served_apart(self, name: str, *, services: bool = False, engine: str = "nginx") -> Iterator[Node]:
        """Give the node with another folder for its nginx, which is ended afterwards."""
        folder = self.folder / f"{name}-{next(self._folders)}"
        folder.mkdir()
        folder.chmod(0o755)
        node = Node(
            self.node.host, folder / engine, self.folder / f"{folder.name}.json", services=services, engine=engine
        )
        self._nodes.append(node)
        try:
            yield self.occupy(node)
        finally:
            node.end()
            self._nodes.remove(node)

    def facts(self, documents: list[Document]) -> Facts:
        """Return what the replies of a world are judged with."""
        return Facts(
            owners=objects.owners(documents),
            certificates=lambda name: objects.certificate_of(documents, name),
            default_certificate=self.default_certificate,
            names=NAMES,
        )

    def default_certificate(self) -> bytes:
        """Return the certificate that a name nobody serves gets now."""
        return self.client.ask(Request(host="unknown.invalid", name="unknown.invalid")).certificate

    def judge(self, request: Mapping[str, Any], facts: Facts, jars: Jars | None = None) -> list[str]:
        """Send a request of a case and return what is not as it expects; `jars` holds the cookies of the case."""
        return wrongs(request["expect"], send(self.client, request, {} if jars is None else jars), facts)


@contextmanager
def build() -> Iterator[IngressLab]:
    """Build a lab, and take it down in the end, whatever happened meanwhile.

    Raises:
        Unavailable: This machine cannot make one.
    """
    spaces.check_machine()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ingress-lab-"))
        # nginx's workers are another user, and find their files by their whole path.
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        lab = IngressLab(spaces.start(folder, stack), folder)
        stack.callback(lab.close)
        yield lab
