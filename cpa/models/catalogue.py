"""What is known of vendors' models without asking them: one list per provider, shipped with the program."""

from functools import cache
from importlib.resources import files

import msgspec

from cpa.formats.models import ModelCard


@cache
def catalogue() -> dict[str, tuple[ModelCard, ...]]:
    """Provider key to its models; read once."""
    text = files("cpa.models").joinpath("catalogue.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, tuple[ModelCard, ...]])
