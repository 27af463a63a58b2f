"""The capabilities of the Pods are enough: rulegen with them, on a read-only root, writes what it should."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.test_manifests import CAPABILITIES
from tests.project.places import ROOT, run

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

EXAMPLES = ROOT / "deploy/examples"

# A node of its own, as a container without privileges sees it: read-only but for what is mounted.
NODE = """
set -eu
mount --make-rprivate /
ip link set lo up
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir /run/tmp
mount -o remount,bind,ro /
limited() {{ TMPDIR=/run/tmp setpriv --bounding-set={only} --inh-caps={only} {python} -m rulegen "$@" 2>&1; }}
if touch /etc/written 2>/dev/null; then echo "the root can be written to"; exit 1; fi
{script}
"""


def on_a_node(script: str, capabilities: set[str]) -> str:
    """Run a shell script with `limited`, which is rulegen with these capabilities alone; return what was said."""
    only = ",".join(["-all", *sorted(f"+{name.lower()}" for name in capabilities)])
    text = NODE.format(only=only, python=sys.executable, script=script)
    done = run("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.slow
def test_services_are_written_with_two_capabilities(variant: str) -> None:
    if shutil.which(f"iptables-{variant}") is None:
        pytest.skip(f"there is no iptables-{variant} here")
    same = f"-f {EXAMPLES}/my-blog --config {EXAMPLES}/config.yaml --variant {variant}"

    said = on_a_node(
        f"limited apply --yes {same} | tail -1; limited plan {same} | tail -1; iptables-{variant}-save -t nat",
        CAPABILITIES["services"],
    )

    assert "No changes." in said
    assert "-A KUBE-NODEPORTS" in said


@pytest.mark.slow
def test_ingresses_are_served_with_the_capabilities_of_their_pod(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("there is no nginx here")
    manifests = "\n---\n".join(
        file.read_text(encoding="utf-8")
        for folder in ("my-blog", "my-blog-ingress-http")
        for file in sorted((EXAMPLES / folder).glob("*.yaml"))
    )
    (tmp_path / "old.yaml").write_text(manifests)
    (tmp_path / "new.yaml").write_text(manifests.replace("blog.holdno.com", "shop.holdno.com"))
    same = "--ingress --no-services --node web-1"

    said = on_a_node(
        f"""
        limited apply --yes {same} -f {tmp_path}/old.yaml | tail -3
        limited apply --yes {same} -f {tmp_path}/new.yaml | tail -3
        limited plan {same} -f {tmp_path}/new.yaml | tail -1
        old=$(pgrep -f '[n]ginx: worker')
        kill -KILL $(pgrep -f '[n]ginx: master'); sleep 3
        for pid in $old; do ! grep -qs '^State:.[^Z]' /proc/$pid/status || echo "an orphan is left"; done
        echo "workers: $(pgrep -c -u www-data nginx)"
        echo "left behind: $(ls /run/tmp)"
        """,
        CAPABILITIES["ingress"],
    )

    assert "nginx started" in said
    assert "nginx reloaded" in said
    assert "No changes." in said
    assert "an orphan is left" not in said
    assert "workers: 0" not in said  # the supervisor has started another nginx
    assert said.endswith("left behind: \n")
