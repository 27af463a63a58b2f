"""The paths of a host: merges the paths of all Ingresses, resolves conflicts, and orders them for nginx.

Matching (Ingress API, `HTTPIngressPath`): first the host, then the longest path; an exact path has priority over a
prefix. A prefix matches whole path elements: `/foo` matches `/foo` and everything below `/foo/`. If only `/foo/` is a
location, nginx answers `/foo` with 301. Therefore both become locations, so that `/foo` is served and not redirected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field

from rulegen.model.ingress.ir import Location, LocationPolicy, MatchKind
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.names import ObjectKey
    from rulegen.model.ingress.ir import Canary, Target

MAX_COMPARED: Final = 1000
"""Maximum number of expressions of one host that are compared pairwise, if they belong to several namespaces."""
BARE: Final = LocationPolicy(ssl_redirect=False, global_auth=False)


class HostPath(Struct, frozen=True):
    """One path of a host, and the target of its requests.

    Attributes:
        path: The path as written; `/` if none was.
        is_exact: Whether the whole path is compared.
        is_regex: Whether the path is an expression.
        source: The object that requests it.
        field: Its field in the source.
    """

    source: ObjectKey
    path: str
    is_exact: bool
    is_regex: bool
    target: Target
    policy: LocationPolicy
    field: str
    canaries: tuple[Canary, ...] = ()

    @property
    def namespace(self) -> str:
        """Namespace of its source."""
        return self.source.name.namespace

    @property
    def key(self) -> tuple[str, bool]:
        """Identity of the path within its host."""
        return self.path, self.is_exact


class Pattern(NamedTuple):
    """A path as an expression.

    Attributes:
        text: The expression.
        key: Sort key of patterns.
    """

    route: HostPath
    kind: MatchKind
    text: str
    key: tuple[int, bool, tuple[int, ...]]


class Paths(Struct):
    """The paths of one host. The first of two equal paths is used, so paths must be added oldest first.

    Attributes:
        is_regex: Whether any path is an expression; as in ingress-nginx, all paths of the host then are.
        using: Namespaces with expressions of Ingresses that are not served. Without them, the other paths of these
            namespaces would match other requests.
    """

    host: str
    reasons: list[Reason] = field(default_factory=list)
    is_regex: bool = False
    using: frozenset[str] = frozenset()
    _routes: dict[tuple[str, bool], HostPath] = field(default_factory=dict)

    def add(self, route: HostPath) -> None:
        """Add a path, or report it as lost if an older Ingress has the same path."""
        kept = self._routes.setdefault(route.key, route)
        if kept is not route:
            self._lose(route, kept)
        elif route.is_regex:
            self.is_regex = True

    def __iter__(self) -> Iterator[HostPath]:
        """Yield all paths, oldest first."""
        yield from self._routes.values()

    def find(self, path: str, *, is_exact: bool) -> HostPath | None:
        """Return the route with exactly this path."""
        return self._routes.get((path, is_exact))

    def replace(self, route: HostPath) -> None:
        """Replace the route with the same path."""
        self._routes[route.key] = route

    @property
    def expressions(self) -> list[HostPath]:
        """The paths that are written as expressions."""
        return [route for route in self._routes.values() if route.is_regex]

    def locations(self, rest: Location) -> tuple[Location, ...]:
        """Return the locations; `rest` is the location for all other paths."""
        locations = list(self._regex_locations() if self.is_regex else self._literal_locations(rest))
        if not any(location.kind is MatchKind.PREFIX and location.path == "/" for location in locations):
            locations.append(rest)
        return tuple(locations)

    def _literal_locations(self, rest: Location) -> Iterator[Location]:
        exact = {route.path: route for route in self._routes.values() if route.is_exact}
        prefixes = self._prefixes()
        for path in sorted(exact):
            yield _location(MatchKind.EXACT, path, exact[path])
        for base in sorted(prefixes):
            route = prefixes[base]
            if base and base not in exact:
                yield _location(MatchKind.EXACT, base, route)
            yield _location(MatchKind.PREFIX, f"{base}/", route)
        for path in sorted(exact):
            without = path.rstrip("/")
            if path.endswith("/") and without and without not in exact and without not in prefixes:
                yield _companion(without, prefixes, rest)

    def _prefixes(self) -> dict[str, HostPath]:
        """Return the prefixes without trailing slash; of `/foo` and `/foo/`, the longer one wins (types.go)."""
        prefixes: dict[str, HostPath] = {}
        ordered = sorted((r for r in self._routes.values() if not r.is_exact), key=lambda r: -len(r.path))
        for route in ordered:
            kept = prefixes.setdefault(route.path.rstrip("/"), route)
            if kept is not route:
                self.reasons.append(
                    Reason(
                        route.source,
                        Verdict.LOST,
                        f"{route.field}.path",
                        f"{route.path!a} and {kept.path!a} are the same prefix: the longer one gets all requests",
                    )
                )
        return prefixes

    def _regex_locations(self) -> Iterator[Location]:
        routes = list(self._routes.values())
        using = self.using.union(route.namespace for route in routes if route.is_regex)
        patterns: dict[tuple[MatchKind, str], Pattern] = {}
        for route in routes:
            made = _pattern(route, ignores_case=route.namespace in using)
            kept = patterns.setdefault((made.kind, made.text), made)
            if kept is not made:
                # The exact path has priority, as always, although both become prefixes that ignore case.
                is_own = route.namespace == kept.route.namespace
                is_first = is_own and route.is_exact and not kept.route.is_exact
                winner, loser = (made, kept) if is_first else (kept, made)
                patterns[made.kind, made.text] = winner
                self._lose(loser.route, winner.route)
        for pattern in self._in_order(list(patterns.values())):
            yield _location(pattern.kind, pattern.text, pattern.route)

    def _in_order(self, patterns: list[Pattern]) -> list[Pattern]:
        """Return the patterns, given oldest first, in the order of matching: longest first.

        But a pattern never precedes an older pattern of another namespace whose requests it could match. Otherwise
        anybody with a long expression could take over all requests of a host.
        """
        ages: dict[str, int] = {}
        for pattern in patterns:
            ages.setdefault(pattern.route.namespace, len(ages))
        if len(ages) < 2:
            return sorted(patterns, key=lambda pattern: pattern.key)
        if len(patterns) > MAX_COMPARED:  # a pairwise comparison would take too long
            return sorted(patterns, key=lambda pattern: (ages[pattern.route.namespace], pattern.key))
        # Only if needed: parsing an expression takes longer than everything else about its path.
        outlines = {pattern.route.key: _outline(pattern.route) for pattern in patterns}
        ordered: list[Pattern] = []
        for pattern in patterns:
            namespace, may_match = pattern.route.namespace, outlines[pattern.route.key].may_match
            least = 0
            for at in range(len(ordered) - 1, -1, -1):
                older = ordered[at].route
                if older.namespace != namespace and any(map(may_match, outlines[older.key].heads)):
                    least = at + 1
                    break
            place = next((at for at in range(least, len(ordered)) if ordered[at].key > pattern.key), len(ordered))
            if least and ordered[least - 1].key > pattern.key:
                self._lose(
                    pattern.route, ordered[least - 1].route, f"requests for {ordered[least - 1].route.path!a} belong"
                )
            ordered.insert(place, pattern)
        return ordered

    def _lose(self, route: HostPath, kept: HostPath, what: str = "") -> None:
        what = what or f"path {route.path!a} belongs"
        host = f"host {self.host}" if self.host else "the default server"
        message = f"{host}, {what} to the older {kept.source}"
        if kept.source == route.source:
            message = f"{host}, path {route.path!a} appears twice: the first one is used"
        self.reasons.append(Reason(route.source, Verdict.LOST, f"{route.field}.path", message))


def _pattern(route: HostPath, *, ignores_case: bool) -> Pattern:
    """Return a path as an expression.

    With `ignores_case`, it is a prefix that ignores case, as in ingress-nginx. If only other namespaces use
    expressions, a path keeps its normal meaning.
    """
    path = route.path if route.is_regex else regex.escape(route.path)
    begun = path if path.startswith("^") else f"^{path}"
    kind, text = MatchKind.REGEX, begun
    if not ignores_case:
        kind = MatchKind.REGEX_CASED
        base = regex.escape(route.path.rstrip("/"))
        text = rf"{begun}\z" if route.is_exact else rf"^{base}(?:/|\z)"
    return Pattern(
        route=route,
        kind=kind,
        text=text,
        # of equal length, the one that sorts last comes first, as in ingress-nginx
        key=(-len(begun), ignores_case or not route.is_exact, tuple(-ord(character) for character in text)),
    )


def _outline(route: HostPath) -> regex.Outline:
    """Return the outline of a path's expression."""
    return regex.outline(route.path) if route.is_regex else regex.outline_of_text(route.path)


def _companion(path: str, prefixes: dict[str, HostPath], rest: Location) -> Location:
    """Return the location for `/foo` beside an exact `/foo/`, which nginx would otherwise redirect with 301."""
    above = path
    while above:
        above = above.rpartition("/")[0]
        if above in prefixes:
            return _location(MatchKind.EXACT, path, prefixes[above])
    return rest._replace(kind=MatchKind.EXACT, path=path)


def _location(kind: MatchKind, path: str, route: HostPath) -> Location:
    return Location(
        kind=kind,
        path=path,
        target=route.target,
        policy=route.policy,
        ingress=route.source.name,
        rule=route.field,
        source=route.path,
        canaries=route.canaries,
    )
