"""The agent's ingress with an API server that answers, refuses or is silent in any order: what is shut stays shut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.agent.ingress import references
from rulegen.kube.objects.names import ObjectKey
from tests.agent.site_unread.stage import (
    CERT,
    CERTIFICATE,
    PASSWORDS,
    PLAIN,
    RESTRICTED,
    SHUT,
    USERS,
    WITH_TLS,
    Stage,
    secrets,
)
from tests.sizes import examples
from tests.strategies.ingresses import (
    SETTINGS,
)

KEYS = [*secrets(CERT, USERS), ObjectKey("ConfigMap", SETTINGS)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["silent", "forbidden", "delete", "put", "again", "answer"]),
        st.sampled_from(range(len(KEYS))),
    ),
    max_size=8,
)


@settings(max_examples=examples(12), deadline=None)
@given(STEPS)
@pytest.mark.slow
def test_no_answer_of_the_api_server_opens_a_closed_path(steps):
    """And once it answers, all is as if it had always answered."""
    objects = [CERTIFICATE, PASSWORDS, RESTRICTED]
    references.LOOK_S = 0.0
    stage = Stage(WITH_TLS, SHUT, PLAIN, *objects, config_map=SETTINGS).turn()
    for what, number in steps:
        key, stored = KEYS[number], objects[number]
        match what:
            case "silent" | "forbidden":
                getattr(stage.server, what).add(key)
            case "delete" if key in stage.server.there and key not in stage.server.silent | stage.server.forbidden:
                stage.server.delete(stored)
            case "put":
                stage.server.put(stored)
            case "again":
                stage = stage.again(silent=stage.server.silent)
            case "answer":
                stage.server.silent.clear()
                stage.server.forbidden.clear()
                stage.server.answer()
        stage.turn()
        assert stage.is_shut("shut.test")
        assert "allow 10.0.0.0/8;" in stage.text("plain.test") + stage.text("shut.test")
        told_gone = ObjectKey("Secret", CERT) in stage.server.cluster.gone()
        assert told_gone or "ssl_certificate secrets/00000" not in stage.text("tls.test")
    stage.server.silent.clear()
    stage.server.forbidden.clear()
    stage.server.put(*objects)
    stage.turn()
    assert stage.site.live == Stage(WITH_TLS, SHUT, PLAIN, *objects, config_map=SETTINGS).turn().site.live
