"""Objects from an API server: one list each of what networking on a node needs, as kube-proxy asks for them.

Secrets and ConfigMaps are never listed, which would need a right to read all of them: each is asked for by its name.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import msgspec

from rulegen.apiserver import limits
from rulegen.apiserver.limits import MAX_PAGES, MAX_TOKEN, TooLargeError
from rulegen.apiserver.transport.client import ApiServer
from rulegen.apiserver.transport.failures import ApiRefusedError
from rulegen.errors import HostError, InputError, Rejected
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import (
    ConfigMap,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Node,
    Secret,
    Service,
)
from rulegen.kube.reading.decode import decode_list, decode_object
from rulegen.kube.reading.json_text import value_count
from rulegen.kube.syntax import is_label, is_subdomain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rulegen.apiserver.budget import Budget
    from rulegen.apiserver.limits import ApiTerms
    from rulegen.errors import Warnings
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded
    from rulegen.kube.reading.decode import ListPage

PAGE_SIZE: Final = 500
"""Objects in one answer. The server keeps a page in memory, and so do we."""

MAX_PAGE_VALUES: Final = 1_500_000
"""Values of one page; 500 slices of 100 endpoints have a million."""

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
    budget: Budget | None = None,
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
        budget: Of the command, with what the kubeconfig may do.

    Raises:
        HostError: Anything could not be read. A list is whole or there is none.
    """
    with ApiServer(kubeconfig, context, budget=budget) as server:
        if warnings is not None:
            for text in server.cautions():
                warnings.add(text)
        wanted = [SERVICES, SLICES]
        if ingress:
            wanted = [each._replace(labels="", fields="") for each in wanted]
        services, slices = (list_all(server, each, page_size) for each in wanted)
        objects = services + _owned(slices, services)
        if ingress:
            objects += list_all(server, INGRESSES, page_size) + list_all(server, INGRESS_CLASSES, page_size)
        if namespaces:
            objects += list_all(server, NAMESPACES, page_size)
        if node:
            objects += _node(server, node)
    return objects


def read_nodes(kubeconfig: str | None = None, context: str | None = None, terms: ApiTerms | None = None) -> list[str]:
    """Return the names of the first Nodes of a cluster, at most one page of them.

    Args:
        kubeconfig: As for `ApiServer`.
        context: As for `ApiServer`.
        terms: As for `ApiServer`.

    Raises:
        HostError: They cannot be read.
    """
    with ApiServer(kubeconfig, context, terms=terms) as server:
        return [each.object.metadata.name for each in _some_nodes(server) if not isinstance(each, Rejected)]


def read_named(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    secrets: Iterable[ObjectName] = (),
    config_maps: Iterable[ObjectName] = (),
    warnings: Warnings | None = None,
    refused: set[ObjectKey] | None = None,
    budget: Budget | None = None,
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
        budget: Of the command, with what the kubeconfig may do.

    Raises:
        HostError: Something else was in the way than absence or a missing right.
    """
    wanted: list[tuple[type[KubeObject], list[ObjectName]]] = [
        (kind, sorted({name for name in names if is_label(name.namespace) and is_subdomain(name.name)}))
        for kind, names in ((Secret, secrets), (ConfigMap, config_maps))
    ]
    if not any(names for _, names in wanted):
        return []
    with ApiServer(kubeconfig, context, budget=budget) as server:
        objects: list[Decoded | Rejected] = []
        for kind, names in wanted:
            read, forbidden = _all_named(server, kind, names)
            objects += read
            if forbidden and refused is not None:
                refused.update(ObjectKey(kind.__name__, name) for name in forbidden)
            if forbidden and warnings is not None:
                warnings.add(_forbidden(server, kind, forbidden))
        return objects


def list_all(server: ApiServer, collection: Collection, page_size: int = PAGE_SIZE) -> list[Decoded | Rejected]:
    """Return all objects of a collection, in the server's order.

    A list that takes so long that the server forgets where we were (410) is asked for anew, as a whole; one whose pages
    are too large in smaller ones.

    Raises:
        HostError: It could not be read to its end.
    """
    doing = f"list {collection.noun}"
    parameters: dict[str, str | int] = {"limit": page_size}
    if collection.labels:
        parameters["labelSelector"] = collection.labels
    if collection.fields:
        parameters["fieldSelector"] = collection.fields
    objects: list[Decoded | Rejected] = []
    limit, until = server.budget.terms.page, time.monotonic() + limits.LIST_S
    for _ in range(MAX_PAGES):
        try:
            raw = server.get(collection.path, parameters, doing=doing, limit=limit, until=until)
            page = read_page(server.url, collection.kind, raw, keep=partial(server.budget.keep, url=server.url))
            del raw  # before the next one comes
        except TooLargeError:
            if page_size <= 1:
                raise
            parameters.pop("continue", None)
            parameters["limit"] = page_size = max(1, page_size // 8)
            objects.clear()
            continue
        except ApiRefusedError as error:
            if error.status == 410 and "continue" in parameters:  # in fewer pages it takes less time
                del parameters["continue"]
                parameters["limit"] = page_size = page_size * 4
            elif error.status == 400 and "fieldSelector" in parameters:
                del parameters["fieldSelector"]
            else:
                raise
            objects.clear()
            continue
        objects += page.objects
        objects += page.rejected
        token = page.continue_token
        if not token:
            return objects
        check_token(server.url, doing, token, parameters.get("continue"))
        parameters["continue"] = token
    raise HostError(
        f"{server.url}: {doing}: more than {MAX_PAGES} pages", hint="check that this is the address of an API server"
    )


def check_token(url: str, doing: str, token: str, before: str | int | None) -> None:
    """Take what asks for the next page of a list.

    Raises:
        HostError: It asks for the same one again, or is longer than a URL may be.
    """
    if token == before:
        raise HostError(f"{url}: {doing}: the server sends the same page again and again")
    if len(token) > MAX_TOKEN:
        raise HostError(f"{url}: {doing}: a continue token of more than {MAX_TOKEN} characters")


class _ListHead(msgspec.Struct):
    kind: str = ""


def read_page(
    url: str,
    kind: type[KubeObject],
    raw: bytes | bytearray,
    *,
    keep: Callable[[Sequence[Decoded | Rejected]], None] = lambda _: None,
) -> ListPage:
    """Return the objects of a page, and where the next one and a watch begin.

    Args:
        url: Of the server, for messages.
        kind: Of the objects that were asked for.
        raw: The body of the answer.
        keep: As for `decode_list`.

    Raises:
        TooLargeError: It has more values than may be held at a time.
        HostError: It is no page of such a list; also if it is `{}`, which would read as an empty one.
    """
    expected = f"{kind.__name__}List"
    if len(raw) > MAX_PAGE_VALUES and value_count(raw) > MAX_PAGE_VALUES:
        words = f"a page of a {expected} with more than {MAX_PAGE_VALUES} values"
        raise TooLargeError(f"{url}: {words}", hint="check that this is the address of an API server")
    try:
        head = msgspec.json.decode(raw, type=_ListHead)
        if head.kind != expected:
            raise InputError(url, f"got {head.kind[:40]!r}, expected a {expected}")  # noqa: TRY301
        return decode_list(raw, kind, source=url, keep=keep)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        said = error.message if isinstance(error, InputError) else f"{url}: no {expected}: {error}"
        raise HostError(said, hint="check that this is the address of an API server") from error


def _owned(slices: list[Decoded | Rejected], services: list[Decoded | Rejected]) -> list[Decoded | Rejected]:
    """Return the slices but those of Services that were not asked for, or came to be after we asked."""
    known = {_name(each) for each in services if not isinstance(each, Rejected)}
    return [each for each in slices if isinstance(each, Rejected) or _owner(each) in known]


def _name(each: Decoded) -> tuple[str, str]:
    return each.object.metadata.namespace, each.object.metadata.name


def _owner(each: Decoded) -> tuple[str, str]:
    metadata = each.object.metadata
    return metadata.namespace, metadata.labels.get(SERVICE_NAME, "")


def _node(server: ApiServer, node: str) -> list[Decoded | Rejected]:
    """Return this Node; where there is none, some of those that there are, for whoever has mistyped its name."""
    try:
        raw = server.get(f"{NODES}/{quote(node, safe='')}", doing="get nodes")
    except ApiRefusedError as error:
        if error.status != 404:
            raise
    else:
        return [decode_object(raw, Node, source=server.url)]
    try:
        return _some_nodes(server)
    except ApiRefusedError as error:
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
    objects: list[Decoded | Rejected] = []
    forbidden: list[ObjectName] = []
    until = time.monotonic() + limits.LIST_S
    for name in names:
        path = f"/api/v1/namespaces/{name.namespace}/{noun}/{name.name}"
        try:
            raw = server.get(path, doing=f"get {noun}", until=until)
        except ApiRefusedError as error:
            if error.status == 403:
                forbidden.append(name)
            elif error.status != 404:
                raise
        else:
            each = _named(server, kind, name, raw)
            server.budget.keep([each], server.url)
            objects.append(each)
    return objects, forbidden


def _forbidden(server: ApiServer, kind: type[KubeObject], names: list[ObjectName]) -> str:
    """Return one line about all that is forbidden, however much it is."""
    noun = f"{kind.__name__.lower()}s"
    shown = ", ".join(str(name) for name in names[:SHOWN_NAMES])
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    where = ", ".join(sorted({name.namespace for name in names})[:SHOWN_NAMES])
    missing = f'a role that lets this user "get" "{noun}" is missing there'
    return f"{server.url}: not allowed to get {noun} in {where}: {shown}{more} cannot be read; {missing}"


def _named(server: ApiServer, kind: type[KubeObject], name: ObjectName, raw: bytearray) -> Decoded | Rejected:
    """Decode the answer to a request for one object.

    Raises:
        HostError: It is none: of another kind, or of another name.
    """
    try:
        head = msgspec.json.decode(raw, type=_ListHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(
            f"{server.url}: no {kind.__name__}: {error}", hint="check that this is the address of an API server"
        ) from error
    if head.kind != kind.__name__:
        raise HostError(f"{server.url}: got {head.kind[:40]!r}, expected a {kind.__name__}")
    decoded = decode_object(raw, kind, source=server.url)
    if not isinstance(decoded, Rejected) and _name(decoded) != tuple(name):
        raise HostError(f"{server.url}: asked for {kind.__name__} {name} and got another one")
    return decoded
