"""Live plugins that are Python functions, for tests of what is made of their answers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import attrs
import trio

from cpa.abi.methods import Method
from cpa.abi.wire import Capabilities, ModelInfo
from cpa.host.generation import Generation
from cpa.host.plugin import LivePlugin
from cpa.host.registration import Identifiers
from cpa.types import PluginId
from tests.host.support import METADATA

Script = Callable[[Any], Awaitable[Any]]


@attrs.define(eq=False)
class ScriptedCopy:
    """What a `LivePlugin` calls. *answers*: by method; *calls*: (method, request, scope id)."""

    answers: dict[str, Any] = attrs.field(factory=dict)
    calls: list[tuple[str, Any, str]] = attrs.field(factory=list)

    async def call(
        self, method: Method[Any, Any], request: Any, /, *, scope_id: str = "", stream_id: str = "", unwind: Any = None
    ) -> Any:
        """The scripted answer: a value, an error, or an async function of the request; else the zero reply."""
        await trio.lowlevel.checkpoint()
        self.calls.append((method.name, request, scope_id))
        answer = self.answers.get(method.name)
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return await answer(request)
        return method.reply() if answer is None else answer

    def count(self, method: str) -> int:
        """How often it was called."""
        return sum(name == method for name, _, _ in self.calls)


def live(
    name: str,
    copy: ScriptedCopy | None = None,
    *,
    priority: int = 0,
    generation: int = 1,
    settings: str = "",
    auth: str = "",
    executor: str = "",
    **capabilities: Any,
) -> LivePlugin:
    """A plugin that takes part; *auth* and *executor* are its identifiers, and declare the capability."""
    present = copy or ScriptedCopy()
    declared: Mapping[str, Any] = {"auth_provider": bool(auth), "executor": bool(executor), **capabilities}
    return LivePlugin(
        id=PluginId(name),
        priority=priority,
        generation=generation,
        metadata=METADATA,
        capabilities=Capabilities(**declared),
        schema_version=3,
        identifiers=Identifiers(auth=auth, executor=executor),
        settings=settings,
        current=lambda: cast("Generation", present),
    )


def models(*names: str) -> tuple[ModelInfo, ...]:
    """Models of those ids."""
    return tuple(ModelInfo(id=name) for name in names)
