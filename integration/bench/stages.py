"""Where the time of `rulegen plan -f` goes, stage by stage, and the most memory that it takes. Run as a process."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from rulegen.compiler.services.compile import compile_model
from rulegen.compiler.services.plan import plan_node
from rulegen.host.files.manifests import read_sources
from rulegen.kube.reading.documents import read_documents
from rulegen.kube.snapshot.build import read_world
from rulegen.languages.iptables.ruleset import Ruleset
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import Family, parse_network
from tests.kernels.observed import observing

T = TypeVar("T")

OPTIONS = Options(node_name="node1", cluster_cidrs=(parse_network("10.244.0.0/14"),))


def main(path: str, *, parses_apart: bool) -> dict[str, float]:
    """Return seconds by stage, and `peak_mb` without the text itself."""
    gc.disable()  # as the command does
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        seconds[stage] = time.perf_counter() - start
        return result

    sources = read_sources([path])
    if parses_apart:  # parsing alone, which reading a world does once more
        timed("parse", lambda: sum(1 for source in sources for _ in read_documents(source)))
        whole = timed("decode", lambda: read_world(sources))
        seconds["decode"] = max(0.0, seconds["decode"] - seconds["parse"])
        del whole
    world = timed("parse and decode", lambda: read_world(sources))
    text = sum(len(source.content) for source in sources)
    model = timed("resolve", lambda: resolve(world, OPTIONS, HostFacts()))
    compiled = timed("compile", lambda: compile_model(model, "iptables", counts=False))
    observed = observing(rulesets={family: Ruleset(family) for family in Family})
    timed("diff", lambda: plan_node(compiled, observed, HostFacts()))
    seconds["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - text / 2**20
    return seconds


if __name__ == "__main__":
    json.dump(main(sys.argv[1], parses_apart=len(sys.argv) > 2), sys.stdout)
