"""`cpa plan`: what a request passes through."""

import argparse

from cpa import cli_plugin, cli_translate
from cpa.config.load import load_config
from cpa.credentials.from_config import credentials_from_config
from cpa.demo import load_demo
from cpa.formats.names import SAME_WIRE, Format, translates
from cpa.models.registry import offers
from cpa.pipeline.chains import NATIVE_IDENTITY
from cpa.pipeline.plan import Plan
from cpa.pipeline.stage import POLICIES, StageKind
from cpa.upstream.dialects import dialect_of


def run_plan(options: argparse.Namespace) -> int:
    """`cpa plan`."""
    loaded = load_demo() if options.demo else load_config(options.config)
    stages, missing = cli_plugin.plan_of_plugins(loaded, options.config, load=not options.no_plugins)
    print("stages, in the order of the request path:")
    plan = Plan.build(stages)
    for kind in StageKind:
        entries = ", ".join(f"{entry.plugin_id} ({entry.priority})" for entry in plan.of(kind)) or "-"
        print(f"  {kind:<34} {POLICIES[kind]:<13} {entries}")
    if missing:
        print("plugins that take no part:")
        for line in missing:
            print(f"  {line}")
    chains = list(cli_translate.chains_text(loaded.config, stages, source=options.source, target=options.target))
    if chains:
        print("chains, the first that matches is used:")
        for line in chains:
            print(line)
    print("routes:")
    for source in Format:
        for target in Format:
            if options.source in (None, source) and options.target in (None, target):
                print(f"  {source:<16} -> {target:<16} {route_text(source, target)}")
    print("providers:")
    for credential in credentials_from_config(loaded.config):
        dialect = dialect_of(credential.provider)
        if dialect is None:
            print(f"  {credential.id:<44} not supported yet")
        elif options.target in (None, dialect.format):
            models = ", ".join(offer.id for offer in offers(credential)) or "no models"
            print(f"  {credential.id:<44} {dialect.format:<8} {models}")
    return 0


def route_text(source: Format, target: Format) -> str:
    """How bodies get from a client's protocol to a provider's."""
    if (source, target) in NATIVE_IDENTITY:
        return "passes as bytes"
    if (source, target) in SAME_WIRE:
        return "passes as bytes, unless a plugin translates"
    return "translated" if translates(source, target) else "no translator"
