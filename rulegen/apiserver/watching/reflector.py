"""One thread that follows one collection of an API server: a list, then a watch from its version, repeatedly.

The server may lose the watch position, be silent, send malformed events, be unreachable for hours, or be restored from
a backup. Reported objects stay as they are until it answers again. Three rules ensure this: a list is reported
completely or not at all; a watch continues from the last received resourceVersion or not at all; and after an
interruption, the server must still have that version (`revision`).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.apiserver.budget import Weights
from rulegen.apiserver.limits import LIMIT_HINT, MAX_OBJECT, MAX_PAGES, TooLargeError
from rulegen.apiserver.lists import check_token, read_page
from rulegen.apiserver.transport.failures import ApiError, without_frames
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watching.backoff import PATIENCE, Pace
from rulegen.apiserver.watching.outage import is_of_server
from rulegen.apiserver.watching.revision import number
from rulegen.errors import HostError, InputError, Rejected
from rulegen.kube.objects.events import Changed, Listed
from rulegen.kube.reading.watch_line import GONE, Bookmark, WatchRefusal, read_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rulegen.apiserver.budget import Kept, Untaken
    from rulegen.apiserver.lists import Collection
    from rulegen.apiserver.transport.connection import ApiConnection
    from rulegen.apiserver.transport.response import Response
    from rulegen.apiserver.watching.backoff import ApiTiming
    from rulegen.apiserver.watching.outage import Outage
    from rulegen.apiserver.watching.revision import Revisions
    from rulegen.apiserver.watching.stats import WatchStats
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.names import Decoded
    from rulegen.kube.reading.decode import ListPage

MAX_PAGE_SIZE: Final = 1 << 20
"""The complete set of objects."""
NEWEST_SILENCE_S: Final = 10.0
"""Maximum silence of the server in a request for its revision, in seconds."""
EVENT_BYTES: Final = 256
"""Size of an event without its object, in bytes."""
CONSUMER_PAUSE_S: Final = 0.02
LIST_TRIES: Final = 3
"""How often a list is started again with other parameters before there is a pause."""


class Shared(NamedTuple):
    """What all reflectors of a server share."""

    tally: WatchStats
    outage: Outage
    revisions: Revisions
    kept: Kept
    untaken: Untaken


class Reflector:
    """Follows one collection, or one object by name, in its own thread.

    Attributes:
        collection: The followed collection.
        is_listed: Whether the complete list was reported once.
    """

    def __init__(
        self,
        link: ApiConnection,
        collection: Collection,
        emit: Callable[[Event], None],
        shared: Shared,
        timing: ApiTiming,
        *,
        page_size: int,
    ) -> None:
        self.collection = collection
        self.is_listed = False
        self._link = link
        self._emit = emit
        self._tally, self._outage, self._revisions, self._kept, self._untaken = shared
        self._weights = Weights(collection.kind)
        self._timing = timing
        self._page_size = page_size
        self._pace = Pace(timing)
        self._kind = collection.kind.__name__
        self._ended = threading.Event()
        self._stir = threading.Event()
        self._era = self._cut_off_in = self._revisions.era
        self._broke_at: float | None = None
        self._whole_at = 0.0
        self._gate = threading.RLock()
        self._answer: Response | None = None
        self._version = ""
        self._refusals = 0
        self._thread = threading.Thread(target=self._run, name=f"watch {collection.noun}", daemon=True)

    def start(self) -> None:
        """Start."""
        self._tally.begin(self, self._kind)
        self._thread.start()

    def end(self) -> None:
        """Stop reporting; the thread ends by itself, at once if it waits for an answer."""
        with self._gate:  # a report in progress is completed
            self._ended.set()
        self._stir.set()
        answer = self._answer
        if answer is not None:
            answer.shut()
        self._tally.end(self)
        self._outage.forget(self)
        self._kept.note(self, 0)

    def begin_era(self) -> None:
        """List again soon: the server went back to an older state."""
        self._stir.set()
        answer = self._answer
        if answer is not None and self._era != self._revisions.era:
            answer.shut()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, at most for that time."""
        if self.is_alive():
            self._thread.join(max(seconds, 0.0))

    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                is_due = self._timing.clock() > self._whole_at or self._pace.was_away()
                if is_due or self._era != self._revisions.era:
                    self._version = ""
                if not self._version:
                    self._version = self._list()
                    self._broke_at = None
                self._watch()
            except ApiError as error:
                self._settle_weight()
                self._sit_out(without_frames(error))
            except Exception as error:  # noqa: BLE001 - our own fault is reported, then all is read again: the thread must go on
                self._version = ""
                self._settle_weight()
                without_frames(error)
                self._sit_out(ApiError(f"{self.collection.noun}: {type(error).__name__}: {error}", ApiReason.INTERNAL))

    def _sit_out(self, error: ApiError) -> None:
        """Pause as this error requires."""
        self._stir.clear()
        if self._ended.is_set():
            return
        if self.collection.is_dispensable and error.status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            self._go_without(error)
            return
        self._broke_at = self._timing.clock()
        era = self._revisions.era
        if self._era != era != self._cut_off_in:  # it was cut once, to list again
            self._cut_off_in = era
            self._outage.forget(self)
            self._breathe()
            return
        self._tally.failed(self._kind, error.label)
        self._pace.fail()
        self._outage.failed(self, error, self._stir.set)
        is_own = not is_of_server(error)
        if not is_own or error.status == 403 or error.reason is ApiReason.INTERNAL or self._pace.failures > 1:
            self._tally.trouble(self, self._kind, error.message, hint=error.hint, is_own=is_own)
        if error.reason.needs_list or error.status == 400 or self._pace.is_outage(error):
            self._version = ""
        self._timing.sleep(self._stir, self._pace.pause(error, is_slow=self._is_kept_out(error)))
        if self._stir.is_set():
            self._pace.woken()
            self._breathe()

    def _go_without(self, error: ApiError) -> None:
        """Report no objects of a kind that the server lacks or denies, and ask again later; what is known stays."""
        if not self.is_listed:
            self._tell(Listed(self.collection.kind, ()))
            self.is_listed = True
        self._version = ""
        self._outage.forget(self)
        if error.status == HTTPStatus.FORBIDDEN:
            self._tally.trouble(self, self._kind, error.message, hint=error.hint)
        self._timing.sleep(self._stir, self._pace.pause(error, is_slow=True))

    def _breathe(self) -> None:
        """Wait for a random moment, so that woken threads do not send their requests at the same time."""
        self._timing.sleep(self._ended, self._timing.draw(0.0, self._timing.wake_spread))

    def _is_kept_out(self, error: ApiError) -> bool:
        """Return whether access is denied, so that requests should be rare."""
        if error.status != 403:
            return False
        self._refusals += 1
        return self._refusals >= PATIENCE

    # -- the list ------------------------------------------------------------------------------------------------------

    def _list(self) -> str:
        """Report all objects, and return where a watch starts.

        Raises:
            ApiError: The list could not be read completely; nothing was reported.
        """
        for _ in range(LIST_TRIES):
            try:
                mark = self._revisions.mark()
                objects, version, weights = self._pages()
                era = self._revisions.listed(version, mark)
                if era is None:
                    raise ApiError(f"{self._link.url}: the API server went back to an older state", ApiReason.SET_BACK)  # noqa: TRY301
            except ApiError as error:
                if error.reason is ApiReason.EXPIRED:  # the server forgot it meanwhile: fewer pages take less time
                    self._page_size = min(self._page_size * 4, MAX_PAGE_SIZE)
                elif error.reason is ApiReason.TOO_LARGE:
                    self._page_size = max(1, self._page_size // 8)
                elif error.status == 400 and _has_optional_fields(self.collection):
                    self.collection = self.collection._replace(fields="")
                elif error.reason is not ApiReason.SET_BACK:
                    raise
                self._tally.failed(self._kind, error.label)
                last = without_frames(error)
            else:
                break
        else:
            raise last
        self._tally.listed(self._kind)
        self._pace.listed()
        self._era = era
        self._whole_at = self._timing.clock() + self._timing.draw(self._timing.whole / 2, self._timing.whole * 1.5)
        self._weights = weights
        self._settle_weight()
        self._tell(Listed(self.collection.kind, tuple(objects)))
        self.is_listed = True
        return version

    def _pages(self) -> tuple[list[Decoded | Rejected], str, Weights]:
        """Return all objects, the resourceVersion of the first page (so that no later change is missed), and weights.

        Raises:
            ApiError: It could not be read completely, or exceeds a limit.
        """
        listed: list[Decoded | Rejected] = []
        version, token, heavy = "", "", 0
        until = self._timing.clock() + self._timing.list_whole
        weights = Weights(self.collection.kind)

        def keep(objects: Sequence[Decoded | Rejected]) -> None:
            nonlocal heavy  # the list holds all objects, also those of one name
            heavy += sum(map(weights.add, objects))
            if self._ended.is_set():
                raise ApiError("the end", ApiReason.CUT)
            if not self._kept.note(self, max(heavy, self._weights.total)):
                raise self._too_many()

        for _ in range(MAX_PAGES):
            if self._timing.clock() > until:
                words = f"{self._link.url}: {self.collection.noun}: not listed in {self._timing.list_whole:g} s"
                raise ApiError(words, ApiReason.TIMEOUT)
            page = self._page(token, keep=keep)
            listed += (*page.objects, *page.rejected)
            version = version or page.resource_version
            if not page.continue_token:
                break
            try:
                check_token(self._link.url, f"list {self.collection.noun}", page.continue_token, token)
            except HostError as error:
                raise ApiError(error.message, ApiReason.GARBAGE) from error
            token = page.continue_token
        else:
            raise ApiError(f"{self._link.url}: {self.collection.noun}: more than {MAX_PAGES} pages", ApiReason.GARBAGE)
        if not version:
            words = f"{self._link.url}: {self.collection.noun}: a list without resourceVersion"
            raise ApiError(words, ApiReason.GARBAGE)
        return listed, version, weights

    def _settle_weight(self) -> None:
        """Record the memory of the reported objects."""
        with self._gate:
            if not self._ended.is_set():
                self._kept.note(self, self._weights.total)

    def _too_many(self) -> ApiError:
        words = f"objects that need more than {self._kept.terms.mebibytes} MiB"
        return ApiError(f"{self._link.url}: {self.collection.noun}: {words}", ApiReason.TOO_MANY, hint=LIMIT_HINT)

    def _newest(self) -> str:
        """Return the server's current revision, from a list of one object.

        Raises:
            ApiError: It could not be read.
        """
        silence_s = min(self._timing.list_silence, NEWEST_SILENCE_S)
        return self._page("", limit=1, silence_s=silence_s).resource_version

    def _page(
        self,
        token: str,
        *,
        limit: int = 0,
        silence_s: float = 0.0,
        keep: Callable[[Sequence[Decoded | Rejected]], None] = lambda _: None,
    ) -> ListPage:
        parameters: dict[str, str | int] = {"limit": limit or self._page_size}
        if token:
            parameters["continue"] = token
        with self._asking(parameters, "list", silence_s or self._timing.list_silence, self._timing.answer) as answer:
            raw = answer.body(self._kept.terms.page)
            self._tally.heard(self)
            self._outage.good(self)
            try:
                with self._kept.decoding:
                    return read_page(self._link.url, self.collection.kind, raw, keep=keep, packs=self.collection.packs)
            except TooLargeError as error:
                raise ApiError(error.message, ApiReason.TOO_LARGE, hint=error.hint) from error
            except ApiError:
                raise
            except HostError as error:
                raise ApiError(error.message, ApiReason.GARBAGE, hint=error.hint) from error

    @contextmanager
    def _asking(
        self, parameters: dict[str, str | int], verb: str, silence_s: float, whole_s: float
    ) -> Iterator[Response]:
        collection = self.collection
        if collection.labels:
            parameters["labelSelector"] = collection.labels
        if collection.fields:
            parameters["fieldSelector"] = collection.fields
        doing = f"{verb} {collection.noun}"
        self._outage.asks(self, doing)
        answer = self._link.ask(collection.path, parameters, doing=doing, silence_s=silence_s, whole_s=whole_s)
        self._answer = answer
        self._refusals = 0
        try:
            if not self._ended.is_set() and (verb == "list" or self._era == self._revisions.era):
                yield answer  # otherwise nothing would close it
            else:
                raise ApiError("the end", ApiReason.CUT)
        finally:
            self._answer = None
            answer.close()

    # -- the watch -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Report changes until the watch ends normally.

        Raises:
            ApiError: It did not start, or ended otherwise.
        """
        timing = self._timing
        if self._broke_at is not None and not self._revisions.is_whole(
            self._version, self._newest, since=self._broke_at
        ):
            self._version = ""
            return
        seconds = round(timing.draw(timing.watch_least, timing.watch_most)) or 1
        parameters: dict[str, str | int] = {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        began = timing.clock()
        whole_s = seconds + timing.watch_silence  # leave a server that never ends it
        with self._asking(parameters, "watch", timing.watch_silence, whole_s) as answer:
            self._tally.watched(self._kind)
            self._tally.heard(self)
            self._tally.well(self)
            self._outage.good(self)
            self._broke_at = None
            try:
                for line in answer.lines(MAX_OBJECT):
                    self._take(line)
            except ApiError as error:
                if error.reason is not ApiReason.TIMEOUT:
                    raise
            finally:
                lasted = timing.clock() - began
                if lasted < seconds - 1:  # the server or a proxy ended it: it may be another server by now
                    self._broke_at = timing.clock()
                if lasted >= timing.short_watch:
                    self._pace.good()
        if lasted < timing.short_watch:
            raise ApiError(f"{self._link.url}: a watch of {self.collection.noun} ended at once", ApiReason.SHORT)

    def _take(self, line: bytes | bytearray) -> None:
        if not line.strip():
            return
        self._tally.heard(self)
        try:
            said = read_line(line, self.collection.kind, source=self._link.url, packs=self.collection.packs)
        except InputError as error:
            raise ApiError(error.message, ApiReason.GARBAGE) from error
        if isinstance(said, WatchRefusal):
            self._version = ""
            reason = ApiReason.EXPIRED if said.code == GONE else ApiReason.ERROR_EVENT
            words = f"{self._link.url}: watch {self.collection.noun}: {said.message} ({said.code})"
            raise ApiError(words, reason, retry_after=said.retry_after)
        if isinstance(said, Bookmark):
            self._tally.count_event(self._kind, "bookmark")
        else:
            heavy = self._weights.changed(said.event)
            if not self._kept.note(self, self._weights.total):
                self._version = ""  # the complete list is needed
                raise self._too_many()
            self._tally.count_event(self._kind, "changed" if isinstance(said.event, Changed) else "gone")
            self._await_consumer(heavy)
            self._tell(said.event)
        self._go_on_from(said.version)

    def _await_consumer(self, heavy: int) -> None:
        """Stop reading while the consumer is busy and waiting events need much memory."""
        if self._untaken.is_full(heavy + EVENT_BYTES):
            while self._untaken.waiting() and not self._ended.wait(CONSUMER_PAUSE_S):
                pass

    def _go_on_from(self, version: str) -> None:
        """Record where a watch continues after the last report.

        Raises:
            ApiError: The version is older than a reported one: the server may have gone back to an older state.
        """
        before, after = number(self._version), number(version)
        if before is not None and after is not None and after < before:
            words = f"{self._link.url}: watch {self.collection.noun}: revision {version} after {self._version}"
            raise ApiError(words, ApiReason.SET_BACK)
        self._version = version or self._version
        self._revisions.heard(self._version, self._era)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        with self._gate:
            if not self._ended.is_set():
                self._emit(event)


def _has_optional_fields(collection: Collection) -> bool:
    """Return whether a field selector, which older servers do not know, only reduces the number of objects."""
    return bool(collection.fields) and not collection.fields.startswith("metadata.name=")
