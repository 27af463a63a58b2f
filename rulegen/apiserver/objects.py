"""Single objects of an API server, read and written: Events, Leases, and the status of other objects.

All writes of rulegen to an API server use this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.kube.reading.json_text import MAX_PLAIN_VALUES, value_count
from rulegen.safe_files import read_regular

if TYPE_CHECKING:
    import datetime as dt

    from rulegen.apiserver.transport.connection import ApiConnection

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7396: a null value deletes, a list is replaced as a whole."""
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
"""The API's own patch format: conditions are merged by type, so that those of other programs stay."""

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LONGEST_NAME: Final = 4096


class Resource(NamedTuple):
    """A kind of object as in URLs and RBAC rules.

    Attributes:
        group: Empty for the core group.
        noun: In the plural.
    """

    group: str
    noun: str

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Return the path of a collection in a namespace, of an object, or of a subresource of it."""
        root = f"/apis/{self.group}/v1" if self.group else "/api/v1"
        parts = [root, "namespaces", quote(namespace, safe=""), self.noun]
        return "/".join([*parts, *(quote(part, safe="") for part in (name, sub) if part)])


EVENTS: Final = Resource("events.k8s.io", "events")
LEASES: Final = Resource("coordination.k8s.io", "leases")
INGRESSES: Final = Resource("networking.k8s.io", "ingresses")
SERVICES: Final = Resource("", "services")


class ApiObjects:
    """Reads and writes objects over a connection, for any number of threads."""

    def __init__(self, link: ApiConnection) -> None:
        self._link = link

    def now(self) -> dt.datetime:
        """Return the API server's time from its last answer; the local time before the first one."""
        return self._link.now()

    def read(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object; None if there is none.

        Raises:
            ApiError: It cannot be read.
        """
        try:
            return _decoded(self._link.fetch(resource.path(namespace, name), doing=f"get {resource.noun}"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, resource: Resource, namespace: str, labels: str) -> list[dict[str, Any]]:
        """Return the objects of a namespace that a label selector selects: at most a few hundred.

        Raises:
            ApiError: They cannot be read.
        """
        parameters = {"labelSelector": labels}
        raw = self._link.fetch(resource.path(namespace), parameters, doing=f"list {resource.noun}")
        items = _decoded(raw).get("items") or []  # Go sometimes prints an empty list as null
        return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []

    def create(self, resource: Resource, namespace: str, document: object) -> dict[str, Any]:
        """Create an object, and return it as stored by the server.

        Raises:
            ApiError: It was not created; status 409 if the name exists.
        """
        path, doing = resource.path(namespace), f"create {resource.noun}"
        return _decoded(self._link.send("POST", path, document, kind=JSON, doing=doing))

    def update(self, resource: Resource, namespace: str, name: str, document: object) -> dict[str, Any]:
        """Replace the object that has the same resourceVersion, and return it as stored by the server.

        Raises:
            ApiError: It was not updated; status 409 if another client has changed it.
        """
        path, doing = resource.path(namespace, name), f"update {resource.noun}"
        return _decoded(self._link.send("PUT", path, document, kind=JSON, doing=doing))

    def patch(
        self, resource: Resource, namespace: str, name: str, document: object, *, kind: str = MERGE_PATCH, sub: str = ""
    ) -> dict[str, Any]:
        """Change some fields of an object or of its subresource, and return it as stored by the server.

        Raises:
            ApiError: It was not changed.
        """
        noun = f"{resource.noun}/{sub}" if sub else resource.noun
        path = resource.path(namespace, name, sub)
        return _decoded(self._link.send("PATCH", path, document, kind=kind, doing=f"patch {noun}"))


def pod_namespace() -> str:
    """Return the namespace of the Pod that this process runs in; empty outside a Pod."""
    try:
        return read_regular(_NAMESPACE_FILE, _LONGEST_NAME, follow=True).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _decoded(raw: bytearray) -> dict[str, Any]:
    """Return the object in an answer.

    Raises:
        ApiError: It is not an object, or has more values than a few hundred objects have.
    """
    if value_count(raw) > MAX_PLAIN_VALUES:
        raise ApiError(f"the API server's answer has more than {MAX_PLAIN_VALUES} values", ApiReason.TOO_LARGE)
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the API server's answer is not JSON: {error}", ApiReason.GARBAGE) from error
    if not isinstance(document, dict):
        raise ApiError("the API server's answer is not an object", ApiReason.GARBAGE)
    return document
