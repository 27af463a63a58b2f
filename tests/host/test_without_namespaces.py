"""A process that may make no network namespace, as in a container without CAP_SYS_ADMIN."""

from __future__ import annotations

import os

import pytest

from rulegen.demo import story
from rulegen.demo.screen import Paint
from rulegen.errors import HostError
from rulegen.host.commands.namespace import NamespaceError, in_throwaway_namespace
from rulegen.host.commands.runner import run
from rulegen.host.ipvs import servers
from tests.otheruser import NOBODY, as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_the_lack_of_a_namespace_is_an_error_of_its_own_type():
    def attempt() -> str:
        try:
            in_throwaway_namespace(list)
        except NamespaceError as error:
            return f"{error.message}; {error.hint}"
        return "there is one"

    words = "cannot create a network namespace for a test: Operation not permitted"
    assert as_user(NOBODY, attempt) == f"{words}; run as root, or with CAP_SYS_ADMIN"


def test_the_demo_says_so_before_its_first_line(monkeypatch):
    monkeypatch.setattr(story, "find", lambda tool: tool)  # nginx may not be here

    def attempt() -> tuple[str, str]:
        said: list[str] = []
        try:
            story.play(said.append, Paint(colour=False))
        except HostError as error:
            said.append(error.message)
            return "\n".join(said), error.hint
        return "\n".join(said), ""

    said, hint = as_user(NOBODY, attempt)  # type: ignore[misc]
    assert said == "no namespaces for the demo's hosts: unshare: unshare failed: Operation not permitted"
    assert "docker run --privileged" in hint


def test_schedulers_are_then_tried_in_the_own_namespace(monkeypatch):
    tried: list[str] = []
    monkeypatch.setattr(servers, "is_loaded", lambda: True)
    monkeypatch.setattr(servers, "_probe", tried.append)
    monkeypatch.setattr(servers, "_PROVEN", set())

    def attempt() -> list[str]:
        servers.load(run, ["sh", "rr"])
        return tried

    assert as_user(NOBODY, attempt) == ["rr", "sh"]
