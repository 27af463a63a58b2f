"""One thread that follows one collection of an API server: a list, then a watch from there, again and again.

The server may do whatever it likes: forget where we were, fall silent, send what is no event, go away for hours, come
back from a backup. What was told before then stays; as soon as the server answers again, what it says is told. Three
rules keep that true: a list is told whole or not at all; a watch goes on from the last resourceVersion that was heard
or not at all; and where a watch broke off, the server must still have that version (`revision`).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rulegen.apiserver.budget import Weights
from rulegen.apiserver.limits import LIMIT_HINT, MAX_OBJECT, MAX_PAGES, TooLargeError
from rulegen.apiserver.lists import check_token, read_page
from rulegen.apiserver.transport.failures import ApiError
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
"""Objects: all there are."""
NEWEST_SILENCE_S: Final = 10.0
"""How long the server may say nothing where it is only asked for its revision."""
EVENT_BYTES: Final = 256
"""Of an event itself, beside its object."""
CONSUMER_PAUSE_S: Final = 0.02
MAX_CAUSES: Final = 20
LIST_TRIES: Final = 3
"""How often a list is begun anew, asked for otherwise, before there is a pause."""


class Shared(NamedTuple):
    """What all followers of a server know together."""

    tally: WatchStats
    outage: Outage
    revisions: Revisions
    kept: Kept
    untaken: Untaken


class Reflector:
    """Follows one collection, or one object of it that is asked for by its name, in a thread of its own.

    Attributes:
        collection: What is followed.
        is_listed: Whether it was passed on once what is there.
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
        """Begin."""
        self._tally.begin(self, self._kind)
        self._thread.start()

    def end(self) -> None:
        """Tell nothing any more; the thread ends by itself, at once if it waits for more of an answer."""
        with self._gate:  # what is being told now is told to its end
            self._ended.set()
        self._stir.set()
        answer = self._answer
        if answer is not None:
            answer.shut()
        self._tally.end(self)
        self._outage.forget(self)
        self._kept.note(self, 0)

    def begin_era(self) -> None:
        """List anew, soon: the server was set back."""
        self._stir.set()
        answer = self._answer
        if answer is not None and self._era != self._revisions.era:
            answer.shut()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, for at most that long."""
        if self.is_alive():
            self._thread.join(max(seconds, 0.0))

    def is_alive(self) -> bool:
        """Tell whether the thread is running."""
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
                self._sit_out(_without_frames(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours is told, and all is read anew: the thread must go on
                self._version = ""
                self._settle_weight()
                _without_frames(error)
                self._sit_out(ApiError(f"{self.collection.noun}: {type(error).__name__}: {error}", ApiReason.INTERNAL))

    def _sit_out(self, error: ApiError) -> None:
        """Wait as long as this error asks for."""
        self._stir.clear()
        if self._ended.is_set():
            return
        self._broke_at = self._timing.clock()
        era = self._revisions.era
        if self._era != era != self._cut_off_in:  # it was cut off, once, to list anew
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
        if (
            error.reason in {ApiReason.EXPIRED, ApiReason.GARBAGE, ApiReason.TOO_LARGE}
            or error.status == 400
            or self._pace.is_outage(error)
        ):
            self._version = ""
        self._timing.sleep(self._stir, self._pace.pause(error, is_slow=self._is_kept_out(error)))
        if self._stir.is_set():
            self._pace.woken()
            self._breathe()

    def _breathe(self) -> None:
        """Wait a moment: not all that are woken at the same time are to ask at the same time."""
        self._timing.sleep(self._ended, self._timing.draw(0.0, self._timing.wake_spread))

    def _is_kept_out(self, error: ApiError) -> bool:
        """Tell whether we may not read what we ask for, and should not ask often."""
        if error.status != 403:
            return False
        self._refusals += 1
        return self._refusals >= PATIENCE

    # -- the list ------------------------------------------------------------------------------------------------------

    def _list(self) -> str:
        """Tell all that is there, and return where a watch goes on.

        Raises:
            ApiError: It could not be read to its end; nothing was told.
        """
        for _ in range(LIST_TRIES):
            try:
                mark = self._revisions.mark()
                objects, version, weights = self._pages()
                era = self._revisions.listed(version, mark)
                if era is None:
                    raise ApiError(f"{self._link.url}: the API server went back to an older state", ApiReason.SET_BACK)  # noqa: TRY301
            except ApiError as error:
                if (
                    error.reason is ApiReason.EXPIRED
                ):  # it took longer than the server remembers: in fewer pages it takes less
                    self._page_size = min(self._page_size * 4, MAX_PAGE_SIZE)
                elif error.reason is ApiReason.TOO_LARGE:
                    self._page_size = max(1, self._page_size // 8)
                elif error.status == 400 and _has_optional_fields(self.collection):
                    self.collection = self.collection._replace(fields="")
                elif error.reason is not ApiReason.SET_BACK:
                    raise
                self._tally.failed(self._kind, error.label)
                last = _without_frames(error)
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
        """Return all objects, the resourceVersion of the first page (no change after that can be missed), and weights.

        Raises:
            ApiError: It could not be read to its end, or is more than may be.
        """
        listed: list[Decoded | Rejected] = []
        version = token = ""
        until = self._timing.clock() + self._timing.list_whole
        weights = Weights(self.collection.kind)

        def keep(objects: Sequence[Decoded | Rejected]) -> None:
            for each in objects:
                weights.add(each)
            if self._ended.is_set():
                raise ApiError("the end", ApiReason.CUT)
            if not self._kept.note(self, max(weights.total, self._weights.total)):
                raise self._too_many()

        for _ in range(MAX_PAGES):
            if self._timing.clock() > until:
                words = f"{self._link.url}: {self.collection.noun}: not listed in {self._timing.list_whole:g} s"
                raise ApiError(words, ApiReason.TIMEOUT)
            page = self._page(token, keep=keep)
            listed += page.objects
            listed += page.rejected
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
            raise ApiError(
                f"{self._link.url}: {self.collection.noun}: a list without resourceVersion", ApiReason.GARBAGE
            )
        return listed, version, weights

    def _settle_weight(self) -> None:
        """Note what the objects weigh that were told."""
        with self._gate:
            if not self._ended.is_set():
                self._kept.note(self, self._weights.total)

    def _too_many(self) -> ApiError:
        words = f"objects that need more than {self._kept.terms.mebibytes} MiB"
        return ApiError(f"{self._link.url}: {self.collection.noun}: {words}", ApiReason.TOO_MANY, hint=LIMIT_HINT)

    def _newest(self) -> str:
        """Return the revision that the server has now, by a list of one.

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
                    return read_page(self._link.url, self.collection.kind, raw, keep=keep)
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
                yield answer  # else nobody would shut it
            else:
                raise ApiError("the end", ApiReason.CUT)
        finally:
            self._answer = None
            answer.close()

    # -- the watch -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Tell what changes, until the watch ends as it should.

        Raises:
            ApiError: It did not begin, or ended otherwise.
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
        whole_s = seconds + timing.watch_silence  # a server that never ends it is left
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
                if lasted < seconds - 1:  # the server ended it, or somebody between: it may be another one by now
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
            said = read_line(line, self.collection.kind, source=self._link.url)
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
                self._version = ""  # what is there is to be known as a whole
                raise self._too_many()
            self._tally.count_event(self._kind, "changed" if isinstance(said.event, Changed) else "gone")
            self._await_consumer(heavy)
            self._tell(said.event)
        self._go_on_from(said.version)

    def _await_consumer(self, heavy: int) -> None:
        """Read no further while the consumer is busy, and events that take much memory wait for it."""
        if self._untaken.is_full(heavy + EVENT_BYTES):
            while self._untaken.waiting() and not self._ended.wait(CONSUMER_PAUSE_S):
                pass

    def _go_on_from(self, version: str) -> None:
        """Note from where a watch goes on, after what was just told.

        Raises:
            ApiError: It is from before what was told already: whether the server was set back is to be looked at.
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
    """Tell whether a field selector, which older servers do not know, is there only to spare us some objects."""
    return bool(collection.fields) and not collection.fields.startswith("metadata.name=")


_Error = TypeVar("_Error", bound=Exception)


def _without_frames(error: _Error) -> _Error:
    """Return an error that keeps nothing of what was read when it was raised: a page may have many MiB."""
    each: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if each is None:
            break
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
