"""`rulegen export`: the desired state as files."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rulegen.cli.engines.table import ENGINES
from rulegen.cli.options.common import CliOptions, input_options, no_services_option
from rulegen.cli.options.ingress import SWITCH, ChosenIngress, export_options, ingress_options
from rulegen.cli.options.old_flags import IngressCommand
from rulegen.cli.terminal.console import note, print_lines
from rulegen.cli.wiring.endpoint_slices import slices_text
from rulegen.cli.wiring.ingress import IngressInputs, export_site
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.compile import printed
from rulegen.errors import ConfigError
from rulegen.host.files.output import write_folder
from rulegen.model.services.document import model_document
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET
from rulegen.plan import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.model.services.ir import Model


@click.command("export", cls=IngressCommand)
@input_options
@click.option("-o", "--output", "folder", metavar="DIR", help="Folder for the files for Services. Created if missing.")
@click.option(
    "--endpointslices",
    is_flag=True,
    help="Write the EndpointSlices that the EndpointSlice controller would create from the Services, Pods and Nodes of"
    " -f. With -o, they go to DIR/endpointslices.yaml, else to standard output.",
)
@SWITCH
@export_options()
@no_services_option
@click.option("--with-secrets", is_flag=True, help="Write real certificates and password files. Default: placeholders.")
@ingress_options(switch=False)
def command(folder: str | None, *, endpointslices: bool, with_secrets: bool, no_services: bool, **chosen: Any) -> None:
    """Write the desired state of a node to files for the standard tools.

    An earlier export is overwritten. If another file has one of these names, the command fails and writes nothing.

    \b
    iptables.save, ip6tables.save   load with iptables-restore and ip6tables-restore, into an empty kernel
    ipset.save                      ipvs mode: load with ipset restore, before the rules
    ipvsadm.save                    ipvs mode: load with ipvsadm -R
    kube-ipvs0.addr                 ipvs mode: the addresses, in the format of ip -br addr
    kube-ipvs0.batch                ipvs mode: load last, with ip -batch
    nftables.nft                    nftables mode: load with nft -f
    policy.routes                   userspace mode: load with xargs -L 1 ip < policy.routes
    services.proxy                  userspace mode: the objects of the proxy, for plan --observed and show
    nfacct.sh                       --nfacct on: creates the counters; run it before loading the rules
    sysctl.conf                     load with sysctl -p, after the rules
    model.json                      the decisions behind the rules, Service by Service
    endpointslices.yaml             --endpointslices: the EndpointSlices that the controller would create

    \b
    nginx/nginx.conf, nginx/hosts/  --ingress: nginx's configuration; test it with nginx -t -p DIR/nginx -c nginx.conf
    nginx/provenance.json           --ingress: the Ingress and rule behind each location

    --nginx DIR implies --ingress, and writes nginx's configuration to DIR instead. --haproxy DIR does the same for
    HAProxy.

    \b
    rulegen export -f shop/ --host host.yaml --node web-1 -o out/
    rulegen export -f shop/ --ingress -o out/
    rulegen export -f shop/ --ingress --no-services --nginx site/
    rulegen export -f shop/ --endpointslices
    """
    sites = {name: site for name in ENGINES if (site := chosen.pop(f"export_{name}"))}
    ingress = ChosenIngress.of(chosen)
    _refuse_shared_folders(folder, sites)
    if endpointslices:
        _refuse_without_pods(chosen["files"], no_services=no_services)
        _refuse_second_output(folder, sites)
    elif not sites:
        ingress.refuse_nothing(no_services=no_services, verb="export")
    if ingress.ingress and not sites and folder:
        sites = {ingress.ingress_engine: f"{folder}/{ingress.ingress_engine}"}
    if not sites and not folder and (ingress.ingress or not endpointslices):
        flag = " or ".join(f"--{name} DIR" for name in ENGINES)
        raise click.UsageError(f"give a folder: -o DIR, or {flag} for Ingresses alone")
    inputs = Inputs(CliOptions(**chosen), is_of_this_host=False, ingress=ingress if sites else None)
    if not sites and ingress.idle:
        note(ingress.idle)
    for name, site in sites.items():
        engine = replace(ingress, ingress_engine=name)
        export_site(IngressInputs(engine, inputs, is_live=False), site, with_secrets=with_secrets)
    if folder and not no_services:
        more = {"endpointslices.yaml": slices_text(inputs.world)} if endpointslices else {}
        _export_rules(inputs, folder, more)
    elif endpointslices:
        _show_slices(inputs)
    elif not no_services and (count := len(inputs.world.services)):
        what = "1 Service are" if count == 1 else f"{count:,} Services are"
        note(f"the rules of {what} not exported: add -o DIR, or --no-services")


def _refuse_shared_folders(folder: str | None, sites: Mapping[str, str]) -> None:
    """Reject folders whose files would get mixed: each engine deletes files of its own earlier export.

    Raises:
        ConfigError: Two engines have the same folder, or a folder is inside that of an engine.
    """
    folders = {f"--{name}": Path(os.path.realpath(site)) for name, site in sites.items()}
    if folder:
        folders["-o"] = Path(os.path.realpath(folder))
    for (option, outer), (other, inner) in permutations(folders.items(), 2):
        is_shared = outer == inner and "-o" not in {option, other}
        if is_shared or (option != "-o" and outer in inner.parents):
            where = "have the same folder" if is_shared else f"must not be nested: {inner} is inside {outer}"
            raise ConfigError(f"{option} and {other} {where}", hint="give each its own folder")


def _refuse_second_output(folder: str | None, sites: Mapping[str, str]) -> None:
    """Reject EndpointSlices on standard output together with the names of other files.

    Raises:
        ConfigError: There are both.
    """
    if sites and not folder:
        raise ConfigError(
            f"--endpointslices and --{next(iter(sites))} would both print to standard output",
            hint="add -o DIR for the EndpointSlices, or run export twice",
        )


def _refuse_without_pods(files: object, *, no_services: bool) -> None:
    """Reject --endpointslices if there are no Pods or Services to derive them from.

    Raises:
        ConfigError: Objects are not read from files, or Services are not included.
    """
    if no_services:
        raise ConfigError("--endpointslices and --no-services exclude each other", hint="omit one of them")
    if not files:
        raise ConfigError(
            "--endpointslices needs files (-f): export does not read Pods from an API server",
            hint="kubectl get nodes,services,pods -A -o yaml | rulegen export --endpointslices -f -",
        )


def _show_slices(inputs: Inputs) -> None:
    """Print the EndpointSlices."""
    text = slices_text(inputs.world)
    for rejected in inputs.world.rejected:
        for line in rejected.lines():
            note(line)
    print_lines(text.splitlines())


def _export_rules(inputs: Inputs, folder: str, more: Mapping[str, str]) -> None:
    """Write the rules, the kernel parameters, the model, and more files."""
    with inputs.progress:
        compiled = inputs.exported()
    files = {each.file: each.head + each.text for each in printed(compiled)}
    if compiled.counts:
        files["nfacct.sh"] = _counters_script(compiled.backend.counters)
    files["sysctl.conf"] = _parameters(inputs.model)
    document = msgspec.json.format(msgspec.json.encode(model_document(inputs.model)), indent=2)
    files["model.json"] = f"{document.decode()}\n"
    files |= more
    write_folder(folder, files)
    for line in show.notes(inputs.report("nothing")):
        note(line)
    print_lines(f"{folder}/{name}" for name in files)


def _parameters(model: Model) -> str:
    """Return the kernel parameters in the format of sysctl.conf(5), with comments about the order.

    If the rules do not drop INVALID packets because conntrack is liberal, that parameter is included.
    """
    values = dict(model.sysctls)
    if not all(node.drop_invalid for node in model.nodes.values()):
        values[BE_LIBERAL] = "1"
    lines = [f"{name} = {value}" for name, value in sorted(values.items())]
    if ROUTE_LOCALNET in values:
        lines = [
            "# Load this after the rules: without KUBE-FIREWALL's rule, neighbours can reach 127.0.0.0/8 of this host.",
            f"# Before the rules are removed: sysctl -w {ROUTE_LOCALNET}=0",
            *lines,
        ]
    return "".join(f"{line}\n" for line in lines)


def _counters_script(names: Iterable[str]) -> str:
    """Return a script that creates the counters; existing ones keep their values."""
    lines = [f"nfacct get {name} >/dev/null 2>&1 || nfacct add {name}" for name in names]
    return "\n".join(
        ["#!/bin/sh", "# Creates the counters that the rules use: run it before iptables-restore.", *lines, ""]
    )
