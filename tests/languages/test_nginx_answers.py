"""Quoting means to nginx what it means to us: a real one answers with the very bytes that were written.

Everything runs in a network namespace of its own, on a unix socket; without nginx or the right to have one, it is
skipped.
"""

from __future__ import annotations

import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_from_bytes

from rulegen.languages.nginx.check import check_nodes
from rulegen.languages.nginx.grammar import MAX_LOCATION
from rulegen.languages.nginx.text import format_nodes
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, Node, template, variable
from tests.nginx_trees import NASTY
from tests.rights import SANDBOX, needs_nginx

pytestmark = needs_nginx
MADE_UP = random.Random(20)
LITERALS = list(
    dict.fromkeys(
        (
            *(text for text in NASTY if text),
            "".join(map(chr, range(0x20, 0x7F))),
            "x" * 3900,
            *("".join(MADE_UP.choices("\"'\\$#{};~*=()^ abé/?%&[]", k=MADE_UP.randint(1, 20))) for _ in range(40)),
        )
    )
)
"""Texts that are told apart, each once."""


@contextmanager
def nginx(nodes: tuple[Node, ...]) -> Iterator[Path]:
    """Serve directives of the http context; yield the socket that answers."""
    check_nodes("http.conf", format_nodes(nodes), nodes)
    with tempfile.TemporaryDirectory(prefix="rulegen") as place:
        folder = Path(place)
        (folder / "http.conf").write_text(format_nodes(nodes), encoding="utf-8")
        temporary = "".join(
            f"{what}_temp_path {what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            "master_process off; daemon off; pid pid; error_log stderr; events {}\n"
            f'http {{ access_log off; {temporary} geo $dollar {{ default "$"; }} include http.conf; }}\n',
            encoding="utf-8",
        )
        command = (*SANDBOX, "nginx", "-p", f"{folder}/", "-c", "nginx.conf")
        tested = subprocess.run((*command, "-t"), check=False, capture_output=True, text=True, timeout=30)
        assert tested.returncode == 0, tested.stderr
        # nginx takes the path of a unix socket as it is: from the folder that it runs in, not from its prefix.
        served = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not listens(folder / "socket"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield folder / "socket"
        finally:
            served.terminate()
            served.wait(timeout=10)


def listens(path: Path) -> bool:
    """Whether a connection is taken; nginx binds a socket a moment before it listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def ask(path: Path, target: bytes, headers: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET %b HTTP/1.0\r\nHost: x\r\n%b\r\n" % (target, headers))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return int(status.split()[1]), dict(line.split(b": ", 1) for line in lines), body


def server(*nodes: Node) -> Directive:
    return Directive(
        "server", (), (Directive("listen", ("unix:socket",)), Directive("merge_slashes", ("off",)), *nodes)
    )


def test_bodies_and_headers_are_the_bytes_that_were_written():
    locations = tuple(
        Directive(
            "location",
            ("=", f"/{number}"),
            (
                Directive("default_type", ("text/plain",)),
                Directive("add_header", ("X-Literal", f"<{text}>")),
                Directive("set", ("$it", text)),
                Directive("return", ("200", template("%s|$it", text))),
            ),
        )
        for number, text in enumerate(LITERALS)
    )
    with nginx((server(*locations),)) as path:
        for number, text in enumerate(LITERALS):
            status, headers, body = ask(path, b"/%d" % number)
            assert (status, body.decode()) == (200, f"{text}|{text}")
            assert headers[b"X-Literal"].decode() == f"<{text}>"


def test_paths_are_matched_literally():
    longest = "x" * (MAX_LOCATION - len("/prefix/"))
    paths = [f"/{text[: len(longest)]}" for text in (*LITERALS, longest) if not {".", ".."} & set(text.split("/"))]
    paths = list(dict.fromkeys(paths))
    locations = [
        Directive("location", ("=", path), (Directive("return", ("200", str(number))),))
        for number, path in enumerate(paths)
    ]
    prefixes = [
        Directive("location", (f"/prefix{path}",), (Directive("return", ("200", str(number))),))
        for number, path in enumerate(paths)
    ]
    with nginx((server(*locations, *prefixes),)) as socket_path:
        for number, path in enumerate(paths):
            target = quote_from_bytes(path.encode()).encode()
            assert ask(socket_path, target)[::2] == (200, b"%d" % number), path
            assert ask(socket_path, b"/prefix" + target)[::2] == (200, b"%d" % number), path


def test_keys_of_maps_are_literal_and_captures_are_put_in():
    keys = list({text.lower(): text for text in LITERALS if text == text.strip() and text.isascii()}.values())
    entries = (
        *(Entry(text, template("%s", f"is {text}")) for text in keys),
        Entry("^captured-(.)(.*)$", template("$1%s$2", "1$1"), KeyKind.REGEX),
        Entry("^AnyCase$", "any case", KeyKind.REGEX_ANY_CASE),
        Entry("default", "none", KeyKind.FIXED),
    )
    nodes = (
        Directive("map_hash_bucket_size", ("8192",)),
        Directive("map", (variable("http_key"), "$found"), entries),
        server(
            Directive(
                "location",
                ("/",),
                (
                    Directive(
                        "if", ("(", variable("http_x"), "=", "a$b", ")"), (Directive("return", ("200", "dollar")),)
                    ),
                    Directive("if", ("(", "$http_x", "~", "^a.b$", ")"), (Directive("return", ("200", "regex")),)),
                    Directive("return", ("200", variable("found"))),
                ),
            )
        ),
    )
    with nginx(nodes) as path:
        for text in keys:
            assert ask(path, b"/", b"Key: %b\r\n" % text.encode())[2].decode() == f"is {text}"
        assert ask(path, b"/", b"Key: captured-ABC\r\n")[2] == b"A1$1BC"
        assert ask(path, b"/", b"Key: anycase\r\n")[2] == b"any case"
        assert ask(path, b"/", b"Key: other\r\n")[2] == b"none"
        assert ask(path, b"/", b"X: a$b\r\n")[2] == b"dollar"
        assert ask(path, b"/", b"X: a-b\r\n")[2] == b"regex"


def test_rewrites_take_regular_expressions_and_captures():
    nodes = (
        server(
            Directive("rewrite", ("^/a\\$(x|y)\\{1\\}$", template("/%s$1$1", "to$"), "last")),
            Directive("location", ("=", "/to$xx"), (Directive("return", ("200", "there")),)),
        ),
    )
    with nginx(nodes) as path:
        assert ask(path, b"/a$x{1}")[::2] == (200, b"there")
