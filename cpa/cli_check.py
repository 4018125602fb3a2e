"""`cpa check`: problems of a configuration and of the files of credentials."""

import argparse
from typing import Final

from cpa.config.load import load_config
from cpa.credentials.from_config import credentials_from_config
from cpa.credentials.judging import judge_folder
from cpa.errors import ConfigError

WRONG_INPUT: Final = 2


def run_check(options: argparse.Namespace) -> int:
    """`cpa check`. Problems go to standard output: they are what was asked for."""
    try:
        loaded = load_config(options.config)
    except ConfigError as exc:
        print(exc)
        return WRONG_INPUT
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    if loaded.config.tls.enable:
        from cpa.server.sockets import tls_context

        try:
            tls_context(loaded.config)
        except OSError as exc:
            print(f"{options.config}: tls: expected a certificate and its key, got files that do not do: {exc}")
            return WRONG_INPUT
    folder = judge_folder(loaded.config.auth_dir)
    for warning in folder.warnings:
        print(f"warning: {warning}")
    if folder.problems:
        print("\n".join(folder.problems))
        return WRONG_INPUT
    credentials = credentials_from_config(loaded.config)
    print(f"{options.config}: ok, {len(credentials)} credentials of {len({c.provider for c in credentials})} providers")
    if folder.usable:
        print(f"{loaded.config.auth_dir}: ok, {folder.usable} credentials")
    return 0
