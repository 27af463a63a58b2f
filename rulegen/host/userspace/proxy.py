"""The proxy of this host: reads what HAProxy and the relay serve at run time, and changes it.

Servers and frontends of existing pools change over HAProxy's socket. Other changes, and changes that HAProxy does not
accept there, start a new HAProxy, and the old one finishes its connections. The release on disk always contains the
complete state, so that a restart serves the same.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.userspace import configuration
from rulegen.backends.userspace.commands import commands
from rulegen.backends.userspace.spares import POOLS_FILE, UnexpectedReportError, backend_name, placement_of, read_pools
from rulegen.errors import HostError, RulegenError
from rulegen.host.locks.file_locks import locked
from rulegen.host.proxy import process_list
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import supervision
from rulegen.host.userspace.exchange import ask
from rulegen.host.userspace.notices import proxy_begins
from rulegen.host.userspace.relay import client as relay
from rulegen.languages.listeners.state import (
    PoolServer,
    ProxyFrontend,
    ProxyListener,
    ProxyObject,
    ServerPool,
    family_of_pool,
    of_protocol,
    pool_key,
    pool_of,
    with_changes,
)
from rulegen.net import Family, Protocol
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rulegen.backends.userspace.spares import Placement
    from rulegen.languages.listeners.language import ChangeProxy
    from rulegen.languages.listeners.state import ProxyKey, ProxyObjects, ProxyValue

_ANSWER_S: Final = 20.0
_RESTART_S: Final = 5.0
_ANSWERS_S: Final = 0.1
"""How long the relay passes on answers that are on their way, before it ends."""
_LAST_S: Final = 3.0
"""How long the last connections through the proxy may take to end; rules and routes for them stay meanwhile."""
_PAUSE_S: Final = 0.02
_PROXIES: Final = "show stat -1 3 -1\n"
_POOLS: Final = f"show map {POOLS_FILE}\n"


class KnownProxy(NamedTuple):
    """What HAProxy serves after a write of this process.

    Attributes:
        mark: The process of HAProxy, and the release on disk: each write, also of another process, changes one of them.
        objects: What it serves; empty if it must be read.
        placement: Which backends serve which pools; None if it must be read.
        is_kept: Whether the release on disk has all objects.
    """

    mark: tuple[str, str]
    objects: ProxyObjects
    placement: Placement | None
    is_kept: bool = True


_KNOWN: dict[Path, KnownProxy] = {}
"""By folder. Reading it all takes a second with some thousand Services."""


def observe() -> ProxyObjects:
    """Return what the proxy of this network namespace serves; nothing if it does not run.

    Raises:
        HostError: It runs, but does not say what it serves; or its files could not be written, see `keep`.
    """
    keep()
    folder = of.of_this_namespace()
    objects = _observed(folder)
    if folder in _KNOWN and _KNOWN[folder].objects != objects:
        del _KNOWN[folder]
    return {**objects, **relay.observe(folder)} if objects else {}


def unreadable() -> str:
    """Return a warning if the state of a proxy cannot be read, so that it is not removed; else empty."""
    folder = of.of_this_namespace()
    try:
        observe()
    except HostError as error:
        return (
            f"the proxy of userspace mode stays: {error.message}; when HAProxy starts and answers again, repeat the"
            f" command; its log is {folder}/{of.LOG}"
        )
    return ""


def write(work: ChangeProxy) -> None:
    """Change what the proxy serves; if it takes the changes at run time, `keep` writes its files.

    Raises:
        HostError: The changes were not accepted. What was served before is still served.
    """
    folder = of.of_this_namespace()
    with _writing(folder) as home:
        known, mark = _KNOWN.pop(folder, None), _mark(folder, home)
        is_kept = known is None or known.is_kept
        if known is not None and known.objects and known.mark == mark:
            _KNOWN[folder] = KnownProxy(mark, {}, None, is_kept=False)  # it may take a part of the changes
            if (extended := _extended(folder, known, work.changes)) is not None:
                _KNOWN[folder] = extended
                return
            is_kept = False
        proxy_begins()
        objects = _write(folder, work.changes, is_kept=is_kept)
        _KNOWN.pop(folder, None)
        if objects:
            _KNOWN[folder] = KnownProxy(_mark(folder, home), objects, None)


def keep() -> None:
    """Write the files of changes that the proxy has taken at run time, so that its next start serves them too.

    Raises:
        HostError: They cannot be written, and the next call tries it again; or HAProxy has ended before, and does not
            serve the changes any more.
    """
    folder = of.of_this_namespace()
    if folder not in _KNOWN or _KNOWN[folder].is_kept:
        return
    with _writing(folder) as home:
        known = _KNOWN[folder]
        if known.mark != _mark(folder, home):
            del _KNOWN[folder]
            raise HostError("HAProxy was started again or changed before its files had the last changes")
        objects = known.objects or _observed(folder)
        if not objects:
            del _KNOWN[folder]
            return
        release, placement = _release(folder, objects), known.placement or _placement(folder)
        if placement.is_low:  # the next changes need spare backends
            supervision.serve(folder, release, _ports(objects))
            del _KNOWN[folder]
        else:
            supervision.keep(folder, release)
            _KNOWN[folder] = KnownProxy(_mark(folder, home), objects, placement)
        of.remove_others(folder, {release})


@contextmanager
def _writing(folder: Path) -> Iterator[int]:
    """Yield a descriptor of the folder while no other process writes to it.

    Raises:
        HostError: It cannot be used.
    """
    try:
        with of.opened(folder, make=True) as home, locked(folder / of.WRITE_LOCK):
            yield home
    except OSError as error:
        raise HostError(f"the folder of the proxy, {error.filename or folder}: {error.strerror}") from error


def _mark(folder: Path, home: int) -> tuple[str, str]:
    instances = folder / of.INSTANCES
    return (instances.read_text() if instances.exists() else "", of.current(home))


def _extended(
    folder: Path, known: KnownProxy, changes: tuple[tuple[ProxyKey, ProxyValue | None], ...]
) -> KnownProxy | None:
    """Change HAProxy without reading all that it serves; return what it serves then, or None if that is not possible.

    With None, HAProxy may serve a part of the changes.
    """
    if any(key.protocol is Protocol.UDP or key.kind is ProxyObject.LISTENER for key, _ in changes):
        return None
    part = {key: known.objects[key] for key, _ in changes if key in known.objects}
    after = with_changes(known.objects, changes)
    pools = {pool_of(key, value or part.get(key)) for key, value in changes}
    for pool in pools | {value.pool for value in part.values() if isinstance(value, ProxyFrontend)}:
        key = pool_key(family_of_pool(pool), pool)
        if key in known.objects:
            part[key] = known.objects[key]
    placement = known.placement or _placement(folder)
    wanted = commands(part, with_changes(part, changes), placement)
    if wanted is None or not all(_answer(folder, each.text) in each.expected for each in wanted):
        return None
    if not all(_has_servers(folder, pool, after, placement) for pool in pools) or supervision.ensure(folder):
        return None
    return KnownProxy(known.mark, after, placement, is_kept=False)


def _has_servers(folder: Path, pool: str, objects: ProxyObjects, placement: Placement) -> bool:
    """Whether the backend of a pool has the servers of the objects, and no others that take connections."""
    value = objects.get(pool_key(family_of_pool(pool), pool))
    if not isinstance(value, ServerPool):
        return True
    backend = placement.backends.get(pool) or backend_name(pool, value)
    report = _report(folder, f"show servers state {backend}\n") or ""
    try:
        served = list(configuration.read_servers(report, {backend: pool}))
    except UnexpectedReportError:
        return False
    wanted = {each for each in objects.values() if isinstance(each, PoolServer) and each.pool == pool}
    of_kinds = [
        {each.server for each in served if each.takes_connections and each.is_fallback is kind}
        for kind in (True, False)
    ]
    return of_kinds == [wanted, wanted]


def _write(
    folder: Path, changes: tuple[tuple[ProxyKey, ProxyValue | None], ...], *, is_kept: bool = True
) -> ProxyObjects:
    """Read what is served, change it, and return what HAProxy serves then; nothing if there is nothing to serve.

    Args:
        folder: The folder.
        changes: The changes.
        is_kept: Whether the release on disk has what is served.
    """
    before, relayed_before = _observed(folder), relay.observe_promptly(folder)
    is_prompt = relayed_before is not None
    if relayed_before is None:  # it hangs: changes of TCP do not wait until its supervisor replaces it
        relayed_before = relay.kept(folder)
    wanted = with_changes({**before, **relayed_before}, changes)
    after, relayed = of_protocol(wanted, Protocol.TCP), of_protocol(wanted, Protocol.UDP)
    ports = _ports(after)
    if not ports:
        if any(key.kind is ProxyObject.FRONTEND for key in relayed_before):
            time.sleep(_ANSWERS_S)
        _end(folder)
        return {}
    relay.keep(folder, relayed)
    moves = _listeners(relayed_before) != _listeners(relayed)
    if is_prompt and not moves:  # first: a new HAProxy that hangs delays no change of UDP
        relay.change(folder, relayed_before, relayed)
        relayed_before = relayed
    if moves or before != after or not is_kept or not (folder / of.CURRENT).is_symlink():
        _write_tcp(folder, before, after, ports, moves=moves)
    elif supervision.ensure(folder):
        relayed_before = {}  # a new relay may have started before or after `keep`
    if not is_prompt:
        relayed_before = relay.observe(folder)
    relay.change(folder, relayed_before, relayed)
    return after


def _listeners(objects: ProxyObjects) -> set[ProxyKey]:
    return {key for key in objects if key.kind is ProxyObject.LISTENER}


def _write_tcp(
    folder: Path, before: ProxyObjects, after: ProxyObjects, ports: Mapping[Family, int], *, moves: bool
) -> None:
    """Change what is served over TCP; with `moves`, the supervisor must open or close listeners."""
    release = _release(folder, after)
    if supervision.ensure(folder):
        before = _observed(folder)  # it may have taken over the proxy of an earlier supervisor
    try:
        if moves or (before != after and not _changed_at_run_time(folder, before, after)):
            supervision.serve(folder, release, ports)
        elif before != after and _placement(folder).is_low:
            supervision.serve(folder, release, ports)  # it has all changes; the next ones need spare backends
        else:
            supervision.keep(folder, release)
    except (supervision.ProxyRefusedError, supervision.ProxyFailedError):
        if not before:
            _end(folder)
        raise
    of.remove_others(folder, {release})


def _release(folder: Path, objects: ProxyObjects) -> str:
    """Write the files of these objects, and return the name of the release.

    Raises:
        HostError: They cannot be written.
    """
    try:
        return of.write_release(folder, configuration.files(objects).texts)
    except RulegenError as error:
        raise error if isinstance(error, HostError) else HostError(error.message) from error


def _ports(objects: ProxyObjects) -> Mapping[Family, int]:
    """Return the port of each listener."""
    return {key.family: value.port for key, value in objects.items() if isinstance(value, ProxyListener)}


def _end(folder: Path) -> None:
    """End the supervisor and remove the folder; HAProxy ends with its last connection, which is waited for.

    Without a release, the end of the supervisor is no failure, see `notices`.
    """
    running = _recorded(folder)
    (folder / of.CURRENT).unlink(missing_ok=True)
    supervision.end(folder)
    until = time.monotonic() + _LAST_S
    while time.monotonic() < until and any(process_list.started(pid) == at for pid, at in running):
        time.sleep(_PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


def _recorded(folder: Path) -> list[tuple[int, int]]:
    """Return the process id and the start of each HAProxy that the supervisor has recorded."""
    try:
        pairs = [line.split() for line in (folder / of.INSTANCES).read_text().splitlines()]
    except OSError:
        return []
    return [(int(pair[0]), int(pair[1])) for pair in pairs if len(pair) == 2 and "".join(pair).isdigit()]


def _changed_at_run_time(folder: Path, before: ProxyObjects, after: ProxyObjects) -> bool:
    """Whether HAProxy accepts the changes over its socket, and serves all objects afterwards."""
    wanted = commands(before, after, _placement(folder))
    if wanted is None:
        return False
    return all(_answer(folder, each.text) in each.expected for each in wanted) and _observed(folder) == after


def _placement(folder: Path) -> Placement:
    """Return which backends serve which pools."""
    with of.opened(folder):
        proxies = _report(folder, _PROXIES) or ""
        pools = _report(folder, _POOLS) or ""
    try:
        return placement_of(configuration.backends_of(proxies), read_pools(pools))
    except UnexpectedReportError as error:
        raise HostError(f"reading the proxy: {error.message}") from error


def _observed(folder: Path) -> ProxyObjects:
    try:
        with of.opened(folder):
            proxies = _report(folder, _PROXIES)
            until = time.monotonic() + _RESTART_S
            while proxies is None and _held(folder):  # HAProxy has ended and is started again
                if time.monotonic() > until:
                    raise HostError(
                        "HAProxy does not run, although its supervisor starts it",
                        hint=f"see {folder}/{of.LOG}",
                    )
                time.sleep(_PAUSE_S)
                proxies = _report(folder, _PROXIES)
            if proxies is None:
                return {}
            servers = _report(folder, "show servers state\n")
            pools = _report(folder, _POOLS)
            texts = {family: _report(folder, f"show map {configuration.map_file(family)}\n") for family in Family}
    except FileNotFoundError:
        return {}
    maps = {family: text for family, text in texts.items() if text is not None and not text.startswith("Unknown map")}
    try:
        return configuration.objects_of_reports(
            proxies, servers or "", maps, supervised=_held(folder), pools=pools or ""
        )
    except UnexpectedReportError as error:
        raise HostError(f"reading the proxy: {error.message}") from error


def _held(folder: Path) -> Mapping[Family, int]:
    """Return the ports that the supervisor listens on; none if it hangs: the next write replaces it."""
    try:
        return supervision.held(folder)
    except StoppingError:
        raise
    except HostError:
        return {}


def _report(folder: Path, question: str) -> str | None:
    try:
        return ask(folder, of.CONTROL, question, _ANSWER_S)
    except OSError as error:
        raise HostError(f"HAProxy does not answer `{question.strip()}`: {error}") from error


def _answer(folder: Path, command: str) -> str:
    return (_report(folder, command) or "").strip()
