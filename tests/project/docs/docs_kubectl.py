"""As much of kubectl as the documentation calls, answered by an API server: python -m … URL get|kustomize|apply …."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.deploy import kustomize
from tests.fakes.requests import COLLECTIONS

SHORT = {"cm": "configmaps", "configmap": "configmaps", "svc": "services", "node": "nodes", "ingress": "ingresses"}


def ask(url: str, path: str) -> Any:
    """Return what the API server has at a path."""
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return json.load(answer)


def options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return plain words, and options with their values."""
    plain: list[str] = []
    named: dict[str, str] = {}
    waiting = iter(words)
    for word in waiting:
        if word == "-A":
            named[word] = ""
        elif word.startswith("-o") and len(word) > 2:
            named["-o"] = word[2:].lstrip("=")
        elif word in {"-n", "-o", "-k"}:
            named[word] = next(waiting)
        elif word.startswith("-"):
            raise SystemExit(f"kubectl stand-in: {word} is unknown here")
        else:
            plain.append(word)
    return plain, named


def get(url: str, words: list[str], named: dict[str, str]) -> str:
    """Return what `kubectl get` prints."""
    items: list[Any] = []
    single: Any = None
    kinds, *names = words
    for kind in kinds.split(","):
        collection = SHORT.get(kind, kind)
        path, api_version, api_kind = COLLECTIONS[collection]
        if names:
            parent, _, noun = path.rpartition("/")
            single = ask(url, f"{parent}/namespaces/{named.get('-n', 'default')}/{noun}/{names[0]}")
            continue
        listed = ask(url, path)["items"]
        items += [{"apiVersion": api_version, "kind": api_kind, **item} for item in listed]
    document = single if names else {"apiVersion": "v1", "kind": "List", "items": items}
    style = named.get("-o", "")
    if style.startswith("jsonpath="):
        keys = re.fullmatch(r"jsonpath=\{((?:\.(?:[\w-]|\\.)+)+)\}", style)
        if keys is None:
            raise SystemExit(f"kubectl stand-in: {style} is no plain path")
        for key in re.findall(r"\.((?:[\w-]|\\.)+)", keys[1]):
            document = document[key.replace("\\.", ".")]
        return str(document)
    if style == "name":
        return "".join(f"{item['kind'].lower()}/{item['metadata']['name']}\n" for item in items)
    return json.dumps(document) if style == "json" else yaml.safe_dump(document)


def main(url: str, verb: str, *words: str) -> None:
    """Answer one call."""
    plain, named = options(list(words) if not verb.startswith("-") else [verb, *words])
    if verb.startswith("-"):
        verb, *plain = plain
    if verb == "get":
        sys.stdout.write(get(url, plain, named))
    elif verb == "kustomize":
        sys.stdout.write(yaml.safe_dump_all(kustomize.build(Path(plain[0]))))
    elif verb == "apply":
        for entry in kustomize.build(Path(named["-k"])):
            print(f"{entry['kind'].lower()}/{entry['metadata']['name']} created")
    else:
        raise SystemExit(f"kubectl stand-in: {verb} is unknown here")


if __name__ == "__main__":
    main(*sys.argv[1:])
