"""One thread that reads all watches of Secrets and ConfigMaps."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.apiserver.referred.scope import EndedError
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.apiserver.referred.scope import Scope

LOOK_S: Final = 0.25
"""How often to check whether a watch was silent for too long, in seconds."""


class WatchStreams:
    """Reads the data of current watches."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """Start with none.

        Args:
            on_end: Called when a watch ends, so that its scope continues.
        """
        self._on_end = on_end
        self._lock = threading.Lock()
        self._new: list[Scope] = []
        self._watched: dict[Scope, int] = {}
        self._ready: set[Scope] = set()
        self._is_over = False
        self._wake: socket.socket | None = None
        self.thread = threading.Thread(target=self._run, name="watch secrets", daemon=True)

    def start(self) -> None:
        """Start to read."""
        self.thread.start()

    def add(self, scope: Scope) -> None:
        """Read the watch of a scope until it ends."""
        with self._lock:
            self._new.append(scope)
        self._wake_up()

    def stop(self) -> None:
        """End the thread, soon."""
        self._is_over = True
        self._wake_up()

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None:
            with suppress(OSError):  # the pipe is full or closed: the thread is awake or has ended
                wake.send(b"x")

    def _run(self) -> None:
        wakes, self._wake = socket.socketpair()
        with wakes, self._wake as wake, selectors.DefaultSelector() as selector:
            for each in (wakes, wake):
                each.setblocking(False)  # noqa: FBT003 - the signature of the library
            selector.register(wakes, selectors.EVENT_READ, None)
            while not self._is_over:
                for key, _ in selector.select(0 if self._ready else LOOK_S):
                    if key.data is None:
                        with suppress(OSError):
                            wakes.recv(4096)
                    else:
                        self._ready.add(key.data)
                self._begin_new(selector)
                for scope in list(self._ready):
                    self._read(selector, scope)
                for scope in [each for each in self._watched if each.is_silent()]:
                    self._end(selector, scope, ApiError("silent", ApiReason.TIMEOUT))
            self._begin_new(selector)
            for scope in list(self._watched):
                self._end(selector, scope, None)

    def _begin_new(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            new, self._new = self._new, []
        for scope in new:
            descriptor = scope.answer.fileno() if scope.answer is not None else -1
            self._watched[scope] = descriptor
            try:
                selector.register(descriptor, selectors.EVENT_READ, scope)
            except (ValueError, OSError, KeyError):  # cut by another thread meanwhile
                self._end(selector, scope, ApiError("the connection broke off", ApiReason.CUT))
            else:
                self._ready.add(scope)  # data that arrived together with the head was read already

    def _read(self, selector: selectors.BaseSelector, scope: Scope) -> None:
        self._ready.discard(scope)
        try:
            if scope.take_ready():
                self._ready.add(scope)
        except EndedError:
            self._end(selector, scope, None)
        except ApiError as error:
            self._end(selector, scope, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends one watch, and not the thread
            self._end(selector, scope, ApiError(f"a watch: {type(error).__name__}: {error}", ApiReason.INTERNAL))

    def _end(self, selector: selectors.BaseSelector, scope: Scope, error: ApiError | None) -> None:
        self._ready.discard(scope)
        descriptor = self._watched.pop(scope, None)
        if descriptor is not None:
            with suppress(ValueError, OSError, KeyError):
                selector.unregister(descriptor)
        scope.end_watch(error)
        self._on_end()
