"""One request for objects by name: a list with a field selector, or a list of a namespace for many of it.

Both are lists and no GETs: a list has a revision, also where the object is not there, by which a server that was
restored from a backup is noticed. And a role that allows single names (`resourceNames`) allows such a list.
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
"""How long the server may say nothing where it is asked for one object."""
BULK_PAGES: Final = 2
"""Pages of a namespace that are read for some of its objects, each of twice as many as are wanted."""
HEADS: Final = 1000
"""Objects of one page of metadata: about 1 MiB."""


_Item = TypeVar("_Item")


class ObjectAnswers(NamedTuple):
    """What the API server said of some objects.

    Attributes:
        there: Those that are there.
        gone: Names of those that are not.
        unknown: Names of those that are perhaps on further pages, which were not read.
    """

    there: list[SelectedObject]
    gone: frozenset[ObjectName]
    unknown: frozenset[ObjectName]


class ObjectReader:
    """Asks one API server for objects by name; any thread may call."""

    def __init__(self, link: ApiConnection, kept: Kept, revisions: Revisions, timing: ApiTiming) -> None:
        self._link = link
        self._kept = kept
        self._revisions = revisions
        self._timing = timing

    def read(self, batch: Batch) -> ObjectAnswers:
        """Return what the server says of the objects of a batch.

        Raises:
            ApiError: They could not be read; with the reason `set back`: the server was restored meanwhile.
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
        """Return which of the objects that are wanted are there, the revision of the list, and its era.

        Args:
            kind: Of the objects.
            namespace: Where; empty for all namespaces.
            wants: Whether an object is wanted.

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
        """Return the revision that the server has now.

        Raises:
            ApiError: It could not be asked.
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
        """Return the items of at most so many pages, whether these are all, and revision and era of the list.

        An object that comes more than once is kept once: pages cost no more memory than the objects that are wanted.

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
            raise ApiError(f"{self._link.url}: the API server was set back", ApiReason.SET_BACK)
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
    """Return the name of a kind in a path and in a role's rule.

    >>> from rulegen.kube.objects.structs import ConfigMap
    >>> plural(ConfigMap)
    'configmaps'
    """
    return f"{kind.__name__.lower()}s"


def path_of(kind: type[KubeObject], namespace: str) -> str:
    """Return where the objects of a kind are; those of all namespaces if none is given."""
    return f"/api/v1/namespaces/{namespace}/{plural(kind)}" if namespace else f"/api/v1/{plural(kind)}"
