"""`python -m integration.exports OUT`: what `rulegen export` writes for every world and every case of Ingress.

It asks nothing of rulegen but its command line, so that one text of it runs with the code of any commit:
`scripts/compare-exports COMMIT` runs it with two and compares. A certificate that is made up is always the same one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

SHARED = Path(os.environ.get("RULEGEN_SHARED", Path(__file__).parents[2] / "shared"))
CLASS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "rulegen"},
    "spec": {"controller": "rulegen.io/ingress"},
}
HOST = "hostname: node1\ninterfaces: [{name: eth0, addresses: [192.168.50.10/24, 'fd00:50::10/64']}]\n"
FOR_PEOPLE = {"message", "reasons"}
"""Keys of JSON documents whose values are sentences."""
COMMENT = re.compile(rb' -m comment --comment (?:"[^"]*"|\S+)')
Job = tuple[str, tuple[str, ...]]


def main(out: Path) -> None:
    """Export all below a folder; where a command fails, its folder has what it said."""
    fixed = Path(os.environ["RULEGEN_FIXED_CERTIFICATE"])
    if not fixed.exists():
        fixed.write_bytes(_certificates().make())
    jobs = [*_worlds(out), *_cases(out)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_export, jobs, chunksize=8))
    print(f"{len(jobs)} exports")


def _worlds(out: Path) -> Iterator[Job]:
    for world in sorted(path for path in (SHARED / "parity").iterdir() if (path / "objects.yaml").exists()):
        files = ("-f", str(world / "objects.yaml"), "--config", str(world / "config.yaml"))
        for mode in ("iptables", "ipvs"):
            folder = out / world.name / mode
            yield str(folder), (*files, "--host", str(world / "world.yaml"), "--mode", mode)


def _cases(out: Path) -> Iterator[Job]:
    for name, part in (("cases", "cases"), ("malicious", "entries")):
        for number, case in enumerate(yaml.safe_load((SHARED / "ingress" / f"{name}.yaml").read_bytes())[part]):
            folder = out / name / f"{number:03}-{case.get('name') or case['id']}"
            folder.mkdir(parents=True)
            (folder / "objects.yaml").write_text(yaml.safe_dump_all(_objects(case)))
            (folder / "host.yaml").write_text(HOST)
            files = ("-f", str(folder / "objects.yaml"), "--host", str(folder / "host.yaml"), "--node", "node1")
            yield str(folder), (*files, "--nginx", str(folder / "site"))


def _objects(case: dict[str, Any]) -> list[Any]:
    parts = ("objects", "ingresses", "services", "endpoints", "extra_objects")
    results = [entry for part in parts for entry in case.get(part) or ()]
    return [*results, *([] if any(entry["kind"] == "IngressClass" for entry in results) else [CLASS])]


def _certificates() -> Any:
    """Return the module that makes a certificate up, of whichever commit is looked at."""
    for name in ("rulegen.host.proxy.disk.default_certificate", "rulegen.host.nginx.default_certificate"):
        with suppress(ModuleNotFoundError):
            return import_module(name)
    raise SystemExit("no module makes certificates up")


def _export(job: Job) -> None:
    folder, arguments = job
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / "said").open("wb") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            _run("export", *arguments, "-o", str(Path(folder) / "rules"))
        os.waitpid(child, 0)


def _run(*words: str) -> None:
    from rulegen.__main__ import main as rulegen  # noqa: PLC0415 - of whichever commit is looked at

    _certificates().make = lambda: Path(os.environ["RULEGEN_FIXED_CERTIFICATE"]).read_bytes()
    try:
        rulegen(list(words))
    except SystemExit as stop:
        print("exit", stop.code, flush=True)
    os._exit(0)


def differences(old: Path, new: Path) -> Iterator[str]:
    """Yield the files of two folders that are not the same; comments, and texts for people alone, are left aside."""
    names = {path.relative_to(base) for base in (old, new) for path in base.rglob("*") if path.is_file()}
    for name in sorted(names):
        if not (old / name).exists() or not (new / name).exists():
            yield f"{name}: only in one"
        elif _plain(old / name) != _plain(new / name):
            yield f"{name}: differs"


def _with_sorted_lists(value: dict[str, Any]) -> dict[str, Any]:
    is_text = {
        key: isinstance(entry, list) and all(isinstance(each, str) for each in entry) for key, entry in value.items()
    }
    return {key: sorted(entry) if is_text[key] else entry for key, entry in value.items() if key not in FOR_PEOPLE}


def _plain(path: Path) -> object:
    if path.suffix == ".json":  # a model of old has sets in any order
        return json.loads(path.read_bytes(), object_hook=_with_sorted_lists)
    if path.name == "said":  # what was printed is for people, but for the exit code
        return path.read_bytes().split(b"\n")[-2:-1]
    lines = (COMMENT.sub(b"", line) for line in path.read_bytes().split(b"\n"))
    return [line for line in lines if not line.lstrip().startswith(b"#")]


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        results = list(differences(Path(sys.argv[2]), Path(sys.argv[3])))
        print(*results, f"{len(results)} differences", sep="\n")
        sys.exit(bool(results))
    main(Path(sys.argv[1]))
