"""Single settings of the configuration (proxy 6.2): ``GET`` tells one, ``PUT`` and ``PATCH`` set it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from cpa.config.editing import ConfigTree
from cpa.config.schema import Config
from cpa.config.sections import STRATEGIES
from cpa.errors import EditError
from cpa.host.paths import MANAGEMENT
from cpa.server.management.calls import Answer, ManagementCall, json_answer
from cpa.server.management.saving import object_of, save
from cpa.types import JsonValue

_Read = Callable[[JsonValue], JsonValue]


def _boolean(value: JsonValue) -> JsonValue:
    if not isinstance(value, bool):
        raise EditError("invalid body", http_status=400)
    return value


def _integer(*, low: int | None = None, instead: int = 0) -> _Read:
    """Integers; below *low*, *instead* is stored, as CLIProxyAPI does."""

    def read(value: JsonValue) -> JsonValue:
        if not isinstance(value, int) or isinstance(value, bool):
            raise EditError("invalid body", http_status=400)
        return instead if low is not None and value < low else value

    return read


def _text(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        raise EditError("invalid body", http_status=400)
    return value.strip()


def _strategy(value: JsonValue) -> JsonValue:
    text = _text(value)
    assert isinstance(text, str)
    strategy = STRATEGIES.get(text.lower() or "round-robin")
    if strategy is None:
        raise EditError("invalid strategy", http_status=400)
    return strategy.value


@attrs.frozen(kw_only=True)
class Scalar:
    """One setting.

    Attributes:
      keys: where it stands in the file.
      read: judges the ``value`` of a body, as far as its JSON type goes; the loader does the rest.
      removable: ``DELETE`` sets it to an empty text.
    """

    keys: tuple[str, ...]
    read: _Read
    removable: bool = False

    @property
    def member(self) -> str:
        """What answers call it."""
        return self.keys[-1]

    def current(self, config: Config) -> JsonValue:
        """Its value in *config*."""
        found: object = config
        for key in self.keys:
            found = getattr(found, key.replace("-", "_"))
        assert isinstance(found, bool | int | str)
        return found

    def store(self, tree: ConfigTree, value: JsonValue) -> None:
        """Put it into the file's *tree*."""
        section = tree
        for key in self.keys[:-1]:
            inner = section.get(key)
            if not isinstance(inner, dict):
                inner = section[key] = {}
            section = inner
        section[self.member] = value


_BOOLEANS: Final = (
    *("debug", "logging-to-file", "usage-statistics-enabled", "request-log", "ws-auth", "force-model-prefix"),
)
SCALARS: Final[Mapping[str, Scalar]] = MappingProxyType(
    {
        **{f"/{name}": Scalar(keys=(name,), read=_boolean) for name in _BOOLEANS},
        "/logs-max-total-size-mb": Scalar(keys=("logs-max-total-size-mb",), read=_integer(low=0)),
        "/error-logs-max-files": Scalar(keys=("error-logs-max-files",), read=_integer(low=0, instead=10)),
        **{
            f"/{name}": Scalar(keys=(name,), read=_integer())
            for name in ("request-retry", "max-retry-credentials", "max-retry-interval")
        },
        "/proxy-url": Scalar(keys=("proxy-url",), read=_text, removable=True),
        "/routing/strategy": Scalar(keys=("routing", "strategy"), read=_strategy),
        "/quota-exceeded/switch-project": Scalar(keys=("quota-exceeded", "switch-project"), read=_boolean),
        "/quota-exceeded/switch-preview-model": Scalar(keys=("quota-exceeded", "switch-preview-model"), read=_boolean),
    }
)
"""Path below the management API to the setting."""


def _asked(call: ManagementCall) -> Scalar:
    return SCALARS[call.head.path.removeprefix(MANAGEMENT)]


async def get(call: ManagementCall) -> Answer:
    """``GET``: ``{"debug": false}``, as it is in force."""
    scalar = _asked(call)
    return json_answer({scalar.member: scalar.current(call.runtime.config)})


async def put(call: ManagementCall) -> Answer:
    """``PUT`` and ``PATCH`` with ``{"value": …}``."""
    scalar = _asked(call)
    value = scalar.read(object_of(call).get("value"))
    return await save(call, lambda tree: scalar.store(tree, value))


async def delete(call: ManagementCall) -> Answer:
    """``DELETE``: empty again. The key stays in the file, with its remarks."""
    scalar = _asked(call)

    def clear(tree: ConfigTree) -> None:
        if scalar.member in tree:
            scalar.store(tree, "")

    return await save(call, clear)
