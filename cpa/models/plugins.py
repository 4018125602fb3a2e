"""What plugins add to the models that this program knows of, as values."""

import attrs

from cpa.formats.models import ModelCard
from cpa.types import PluginId


@attrs.frozen(kw_only=True)
class PluginModels:
    """Models that one plugin contributes to one provider (plugin-abi 4.2.4).

    Attributes:
      credential_id: they are that credential's, in place of its catalogue; empty = every usable one of *provider*
        serves them as well.
      claimed: the plugin executes them: they are listed even while nobody can pay for them.
      direct: likewise, and the plugin serves them without a credential when its provider has none at all.
    """

    plugin_id: PluginId
    provider: str
    cards: tuple[ModelCard, ...]
    credential_id: str = ""
    claimed: bool = False
    direct: bool = False
