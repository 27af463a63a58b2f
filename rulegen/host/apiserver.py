"""Objects from an API server: one list each of what networking on a node needs, as kube-proxy asks for them.

Secrets and ConfigMaps are never listed, which would need a right to read all of them: each is asked for by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import msgspec

from rulegen.errors import HostError, InputError, Rejected
from rulegen.host.apiclient import ApiServer
from rulegen.host.apitrouble import RefusedError
from rulegen.kube.decode import decode_list, decode_object
from rulegen.kube.objects import ConfigMap, EndpointSlice, Ingress, IngressClass, Namespace, Node, Secret, Service
from rulegen.kube.wording import is_label, is_subdomain
from rulegen.kube.world import ObjectKey, ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.errors import Warnings
    from rulegen.kube.decode import ListPage
    from rulegen.kube.objects import KubeObject
    from rulegen.kube.validate import Decoded

PAGE_SIZE: Final = 500
"""Objects in one answer. The server keeps a page in memory, and so do we."""

SERVICE_NAME: Final = "kubernetes.io/service-name"


class Collection(NamedTuple):
    """A kind of object and how to ask for those of all namespaces.

    Attributes:
        kind: The struct of its objects.
        path: Where they are.
        noun: Their name in a role's rule.
        labels: A label selector.
        fields: A field selector; older servers do not know it and refuse, then it is left out.
    """

    kind: type[KubeObject]
    path: str
    noun: str
    labels: str = ""
    fields: str = ""


SERVICES: Final = Collection(
    Service, "/api/v1/services", "services", "!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"
)
SLICES: Final = Collection(
    EndpointSlice,
    "/apis/discovery.k8s.io/v1/endpointslices",
    "endpointslices.discovery.k8s.io",
    "!service.kubernetes.io/headless",
)
INGRESSES: Final = Collection(Ingress, "/apis/networking.k8s.io/v1/ingresses", "ingresses.networking.k8s.io")
INGRESS_CLASSES: Final = Collection(
    IngressClass, "/apis/networking.k8s.io/v1/ingressclasses", "ingressclasses.networking.k8s.io"
)
NAMESPACES: Final = Collection(Namespace, "/api/v1/namespaces", "namespaces")
NODES: Final = "/api/v1/nodes"
SHOWN_NAMES: Final = 3


def read_cluster(
    kubeconfig: str | None = None,
    context: str | None = None,
    node: str | None = None,
    *,
    ingress: bool = False,
    namespaces: bool = False,
    warnings: Warnings | None = None,
    page_size: int = PAGE_SIZE,
) -> list[Decoded | Rejected]:
    """Return all Services, the EndpointSlices that belong to them, and one Node, each usable or with its faults.

    Where the cluster does not know that Node, some of the Nodes that it knows are returned instead.

    With `ingress` also all Ingresses and IngressClasses, and the Services that an Ingress may name though kube-proxy
    does not look at them: headless ones, and those of another proxy.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        node: The Node to read; none by default.
        ingress: Whether Ingresses are served.
        namespaces: Whether labels of namespaces decide about them.
        warnings: Told what is missing though work can go on.
        page_size: How many objects to ask for at once.

    Raises:
        HostError: Anything could not be read. A list is whole or there is none.
    """
    with ApiServer(kubeconfig, context) as server:
        if warnings is not None and not server.is_verified:
            warnings.add(f"{server.url}: TLS certificates are not verified, as the kubeconfig demands")
        wanted = [SERVICES, SLICES]
        if ingress:
            wanted = [one._replace(labels="", fields="") for one in wanted]
        services, slices = (list_all(server, one, page_size) for one in wanted)
        found = services + _owned(slices, services)
        if ingress:
            found += list_all(server, INGRESSES, page_size) + list_all(server, INGRESS_CLASSES, page_size)
        if namespaces:
            found += list_all(server, NAMESPACES, page_size)
        if node:
            found += _node(server, node)
    return found


def read_nodes(kubeconfig: str | None = None, context: str | None = None) -> list[str]:
    """Return the names of the first Nodes of a cluster, at most one page of them.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.

    Raises:
        HostError: They cannot be read.
    """
    with ApiServer(kubeconfig, context) as server:
        return [one.object.metadata.name for one in _some_nodes(server) if not isinstance(one, Rejected)]


def read_named(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    secrets: Iterable[ObjectName] = (),
    config_maps: Iterable[ObjectName] = (),
    warnings: Warnings | None = None,
    refused: set[ObjectKey] | None = None,
) -> list[Decoded | Rejected]:
    """Return the Secrets and ConfigMaps of these names, each usable or with its faults, in order of name.

    One that is not there is not in the result, nor is one that we may not read: nobody can say whether that is there.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        secrets: Names of Secrets; the same one may stand there several times.
        config_maps: Names of ConfigMaps, likewise.
        warnings: Told what we lack the right to read.
        refused: Is given the names of what we may not read.

    Raises:
        HostError: Something else was in the way than absence or a missing right.
    """
    wanted: list[tuple[type[KubeObject], list[ObjectName]]] = [
        (kind, sorted({name for name in names if is_label(name.namespace) and is_subdomain(name.name)}))
        for kind, names in ((Secret, secrets), (ConfigMap, config_maps))
    ]
    if not any(names for _, names in wanted):
        return []
    with ApiServer(kubeconfig, context) as server:
        found: list[Decoded | Rejected] = []
        for kind, names in wanted:
            read, forbidden = _all_named(server, kind, names)
            found += read
            if forbidden and refused is not None:
                refused.update(ObjectKey(kind.__name__, name) for name in forbidden)
            if forbidden and warnings is not None:
                warnings.add(_forbidden(server, kind, forbidden))
        return found


def list_all(server: ApiServer, collection: Collection, page_size: int = PAGE_SIZE) -> list[Decoded | Rejected]:
    """Return all objects of a collection, in the server's order.

    A list that takes so long that the server forgets where we were (410) is asked for anew, as a whole.

    Raises:
        HostError: It could not be read to its end.
    """
    parameters: dict[str, str | int] = {"limit": page_size}
    if collection.labels:
        parameters["labelSelector"] = collection.labels
    if collection.fields:
        parameters["fieldSelector"] = collection.fields
    found: list[Decoded | Rejected] = []
    while True:
        try:
            raw = server.get(collection.path, parameters, doing=f"list {collection.noun}")
        except RefusedError as error:
            if error.status == 410 and "continue" in parameters:
                del parameters["continue"], parameters["limit"]
            elif error.status == 400 and "fieldSelector" in parameters:
                del parameters["fieldSelector"]
            else:
                raise
            found.clear()
            continue
        page = read_page(server.url, collection.kind, raw)
        found += page.objects
        found += page.rejected
        token = page.continue_token
        if not token:
            return found
        if token == parameters.get("continue"):
            raise HostError(f"{server.url}: list {collection.noun}: the same page over and over")
        parameters["continue"] = token


class _Head(msgspec.Struct):
    kind: str = ""


def read_page(url: str, kind: type[KubeObject], raw: bytes) -> ListPage:
    """Return the objects of a page, and where the next one and a watch begin.

    Args:
        url: Of the server, for messages.
        kind: Of the objects that were asked for.
        raw: The body of the answer.

    Raises:
        HostError: It is no page of such a list; also if it is `{}`, which would read as an empty one.
    """
    expected = f"{kind.__name__}List"
    try:
        head = msgspec.json.decode(raw, type=_Head)
        if head.kind != expected:
            raise InputError(url, f"got {head.kind[:40]!r}, expected a {expected}")  # noqa: TRY301
        return decode_list(raw, kind, source=url)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        said = error.message if isinstance(error, InputError) else f"{url}: no {expected}: {error}"
        raise HostError(said, hint="is that the address of an API server?") from error


def _owned(slices: list[Decoded | Rejected], services: list[Decoded | Rejected]) -> list[Decoded | Rejected]:
    """Return the slices but those of Services that were not asked for, or came to be after we asked."""
    known = {_name(one) for one in services if not isinstance(one, Rejected)}
    return [one for one in slices if isinstance(one, Rejected) or _owner(one) in known]


def _name(one: Decoded) -> tuple[str, str]:
    return one.object.metadata.namespace, one.object.metadata.name


def _owner(one: Decoded) -> tuple[str, str]:
    metadata = one.object.metadata
    return metadata.namespace, metadata.labels.get(SERVICE_NAME, "")


def _node(server: ApiServer, node: str) -> list[Decoded | Rejected]:
    """Return this Node; where there is none, some of those that there are, for whoever has mistyped its name."""
    try:
        raw = server.get(f"{NODES}/{quote(node, safe='')}", doing="get nodes")
    except RefusedError as error:
        if error.status != 404:
            raise
    else:
        return [decode_object(raw, Node, source=server.url)]
    try:
        return _some_nodes(server)
    except RefusedError as error:
        if error.status != 403:
            raise
        return []  # a role may allow one Node by its name, and no list


def _some_nodes(server: ApiServer) -> list[Decoded | Rejected]:
    page = read_page(server.url, Node, server.get(NODES, {"limit": PAGE_SIZE}, doing="list nodes"))
    return [*page.objects, *page.rejected]


def _all_named(
    server: ApiServer, kind: type[KubeObject], names: list[ObjectName]
) -> tuple[list[Decoded | Rejected], list[ObjectName]]:
    """Get objects by name; return those that are there, and the names of those that we may not read."""
    noun = f"{kind.__name__.lower()}s"
    found: list[Decoded | Rejected] = []
    forbidden: list[ObjectName] = []
    for name in names:
        try:
            raw = server.get(f"/api/v1/namespaces/{name.namespace}/{noun}/{name.name}", doing=f"get {noun}")
        except RefusedError as error:
            if error.status == 403:
                forbidden.append(name)
            elif error.status != 404:
                raise
        else:
            found.append(_named(server, kind, name, raw))
    return found, forbidden


def _forbidden(server: ApiServer, kind: type[KubeObject], names: list[ObjectName]) -> str:
    """Return one line about all that is forbidden, however much it is."""
    noun = f"{kind.__name__.lower()}s"
    shown = ", ".join(str(name) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    where = ", ".join(sorted({name.namespace for name in names})[:SHOWN_NAMES])
    missing = f'a role that lets this user "get" "{noun}" is missing there'
    return f"{server.url}: not allowed to get {noun} in {where}: {shown}{more} cannot be read; {missing}"


def _named(server: ApiServer, kind: type[KubeObject], name: ObjectName, raw: bytes) -> Decoded | Rejected:
    """Decode the answer to a request for one object.

    Raises:
        HostError: It is none: of another kind, or of another name.
    """
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(
            f"{server.url}: no {kind.__name__}: {error}", hint="is that the address of an API server?"
        ) from error
    if head.kind != kind.__name__:
        raise HostError(f"{server.url}: got {head.kind[:40]!r}, expected a {kind.__name__}")
    found = decode_object(raw, kind, source=server.url)
    if not isinstance(found, Rejected) and _name(found) != tuple(name):
        raise HostError(f"{server.url}: asked for {kind.__name__} {name} and got another one")
    return found
