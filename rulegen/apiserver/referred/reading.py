"""One request for objects by name: a list with a field selector, or a list of the namespace for many objects.

Both are lists, not GETs. A list has a revision even if the object does not exist, which reveals a server that was
restored from a backup. A role that allows single names (`resourceNames`) also allows such a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rulegen.apiserver.limits import MAX_PAGES
from rulegen.apiserver.lists import check_token
from rulegen.apiserver.referred.selection import METADATA_LIST, read_heads, read_selected
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.apiserver.budget import Kept
    from rulegen.apiserver.referred.order import Batch
    from rulegen.apiserver.referred.selection import ListHead, ObjectHead, SelectedObject
    from rulegen.apiserver.transport.connection import ApiConnection
    from rulegen.apiserver.watching.backoff import ApiTiming
    from rulegen.apiserver.watching.revision import Revisions
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import ObjectName

NAME_SILENCE_S: Final = 10.0
"""Maximum silence of the server in a request for one object, in seconds."""
BULK_PAGES: Final = 2
"""Maximum number of pages that are read for some objects of a namespace, each with twice as many objects."""
HEADS: Final = 1000
"""Objects of one page of metadata: about 1 MiB."""


_Item = TypeVar("_Item")


class ObjectAnswers(NamedTuple):
    """The API server's answer about some objects.

    Attributes:
        there: The existing ones.
        gone: Names of the missing ones.
        unknown: Names of those that may be on further pages, which were not read.
    """

    there: list[SelectedObject]
    gone: frozenset[ObjectName]
    unknown: frozenset[ObjectName]


class ObjectReader:
    """Requests objects by name from one API server; any thread may call."""

    def __init__(self, link: ApiConnection, kept: Kept, revisions: Revisions, timing: ApiTiming) -> None:
        self._link = link
        self._kept = kept
        self._revisions = revisions
        self._timing = timing

    def read(self, batch: Batch) -> ObjectAnswers:
        """Return the server's answer about the objects of a batch.

        Raises:
            ApiError: They could not be read; reason `set back` if the server was restored meanwhile.
        """
        kind, wanted = batch.group.kind, batch.names
        path = path_of(kind, batch.group.namespace)
        parameters: dict[str, str | int] = {"limit": 2 * len(wanted) if batch.is_bulk else 1}
        silence_s = self._timing.list_silence
        if not batch.is_bulk:
            [name] = wanted
            parameters["fieldSelector"] = f"metadata.name={name.name}"
            silence_s = min(silence_s, NAME_SILENCE_S)

        def decoded(raw: bytearray) -> tuple[ListHead, dict[ObjectName, SelectedObject]]:
            with self._kept.decoding:
                head, objects = read_selected(self._link.url, kind, raw, wanted.__contains__)
                return head, {each.head.name: each for each in objects}

        objects, is_whole, _ = self._pages(
            kind, path, parameters, decoded, "", silence_s, BULK_PAGES if batch.is_bulk else MAX_PAGES
        )
        missing = wanted - objects.keys()
        if missing and not is_whole and not batch.is_bulk:
            raise self._endless(kind)
        there = [*objects.values()]
        return ObjectAnswers(there, missing if is_whole else frozenset(), frozenset() if is_whole else missing)

    def heads(
        self, kind: type[KubeObject], namespace: str, wants: Callable[[ObjectName], bool]
    ) -> tuple[list[ObjectHead], str, int]:
        """Return the wanted objects that exist, the revision of the list, and its era.

        Args:
            kind: Kind of the objects.
            namespace: Their namespace; empty for all namespaces.
            wants: Returns whether an object is wanted.

        Raises:
            ApiError: As for `read`.
        """

        def decoded(raw: bytearray) -> tuple[ListHead, dict[ObjectName, ObjectHead]]:
            with self._kept.decoding:
                head, objects = read_heads(self._link.url, kind, raw, wants)
                return head, {each.name: each for each in objects}

        path = path_of(kind, namespace)
        silence_s = self._timing.list_silence
        objects, is_whole, (version, era) = self._pages(
            kind, path, {"limit": HEADS}, decoded, METADATA_LIST, silence_s, MAX_PAGES
        )
        if not is_whole:
            raise self._endless(kind)
        return [*objects.values()], version, era

    def newest(self, kind: type[KubeObject], namespace: str) -> str:
        """Return the server's current revision.

        Raises:
            ApiError: It could not be read.
        """

        def decoded(raw: bytearray) -> tuple[ListHead, dict[ObjectName, ObjectHead]]:
            return read_heads(self._link.url, kind, raw, lambda _: False)[0], {}

        path = path_of(kind, namespace)
        return self._page(kind, path, {"limit": 1}, decoded, METADATA_LIST, NAME_SILENCE_S)[0].version

    def _pages(
        self,
        kind: type[KubeObject],
        path: str,
        parameters: dict[str, str | int],
        decoded: Callable[[bytearray], tuple[ListHead, dict[ObjectName, _Item]]],
        accept: str,
        silence_s: float,
        most: int,
    ) -> tuple[dict[ObjectName, _Item], bool, tuple[str, int]]:
        """Return the items of a limited number of pages, whether these are all, and revision and era of the list.

        Duplicates are kept once, so pages need no more memory than the wanted objects.

        Raises:
            ApiError: As for `read`.
        """
        items: dict[ObjectName, _Item] = {}
        version = token = ""
        mark = self._revisions.mark()
        until = self._timing.clock() + self._timing.list_whole
        for _ in range(most):
            head, new = self._page(kind, path, parameters, decoded, accept, silence_s)
            items.update(new)
            version = version or head.version
            try:
                check_token(self._link.url, f"list {plural(kind)}", head.continue_token, token or None)
            except HostError as error:
                raise ApiError(error.message, ApiReason.GARBAGE) from error
            token = head.continue_token
            if not token:
                break
            if self._timing.clock() > until:
                words = f"{self._link.url}: {plural(kind)}: not listed in {self._timing.list_whole:g} s"
                raise ApiError(words, ApiReason.TIMEOUT)
            parameters = {**parameters, "continue": token}
        era = self._revisions.listed(version, mark)
        if era is None:
            raise ApiError(f"{self._link.url}: the API server went back to an older state", ApiReason.SET_BACK)
        return items, not token, (version, era)

    def _endless(self, kind: type[KubeObject]) -> ApiError:
        return ApiError(f"{self._link.url}: {plural(kind)}: more than {MAX_PAGES} pages", ApiReason.GARBAGE)

    def _page(
        self,
        kind: type[KubeObject],
        path: str,
        parameters: dict[str, str | int],
        decoded: Callable[[bytearray], tuple[ListHead, dict[ObjectName, _Item]]],
        accept: str,
        silence_s: float,
    ) -> tuple[ListHead, dict[ObjectName, _Item]]:
        doing = f"list {plural(kind)}"
        answer = self._link.ask(
            path, parameters, doing=doing, silence_s=silence_s, whole_s=self._timing.answer, accept=accept
        )
        try:  # its bytes count as held until they are decoded
            return decoded(answer.body(self._kept.terms.page))
        finally:
            answer.close()


def plural(kind: type[KubeObject]) -> str:
    """Return the name of a kind in paths and RBAC rules.

    >>> from rulegen.kube.objects.structs import ConfigMap
    >>> plural(ConfigMap)
    'configmaps'
    """
    return f"{kind.__name__.lower()}s"


def path_of(kind: type[KubeObject], namespace: str) -> str:
    """Return the path of the objects of a kind; of all namespaces if none is given."""
    return f"/api/v1/namespaces/{namespace}/{plural(kind)}" if namespace else f"/api/v1/{plural(kind)}"
