"""What the connections of one mock provider share: answers in HTTP framing, cached, and counters."""

import hmac
from collections import OrderedDict
from collections.abc import Iterable

import attrs

from cpa.formats.names import Format
from cpa.testing.mock.asks import Ask, AskError, Endpoint, Route, parse_ask, parse_route
from cpa.testing.mock.extras import models_format, models_full
from cpa.testing.mock.http import RawHeader, Request, in_http_chunks, response_head
from cpa.testing.mock.record import Changes, Recorder
from cpa.testing.mock.render import Answer, Ending, error_answer, make_answer
from cpa.testing.mock.scenario import HEADER_PREFIX, Scenario, apply_headers, parse_model

_CACHED_PLANS = 128
_CACHED_BODY_BYTES = 16 << 10
"""Hashing larger bodies costs more than answering them."""
_MAX_COUNTED_MODELS = 4096


@attrs.frozen(kw_only=True)
class Plan:
    """An answer in HTTP framing. Attributes as in `Answer`."""

    head: bytes
    writes: Iterable[bytes]
    ending: Ending
    first_byte_s: float
    delay_s: float

    @property
    def pauses(self) -> bool:
        return bool(self.first_byte_s or self.delay_s) or self.ending is Ending.STALL


def frame(answer: Answer, request: Request) -> Plan:
    connection = b""
    if not request.keep_alive:
        connection = b"close"
    elif not request.chunked_ok:
        connection = b"keep-alive" if answer.length is not None else b"close"
    head = response_head(
        answer.status,
        answer.content_type,
        answer.headers,
        length=answer.length,
        chunked=request.chunked_ok,
        connection=connection,
    )
    writes: Iterable[bytes] = answer.writes
    if request.method == "HEAD":
        writes = ()
    elif answer.length is None and request.chunked_ok:
        writes = in_http_chunks(writes, complete=answer.ending is Ending.COMPLETE)
    if answer.ending is Ending.RESET_HEADERS:
        head, writes = head[: len(head) // 2], ()
    elif answer.ending is Ending.CLOSE_BEFORE_HEADERS:
        head, writes = b"", ()
    return Plan(
        head=head,
        writes=tuple(writes) if answer.reusable else writes,
        ending=answer.ending,
        first_byte_s=answer.first_byte_s,
        delay_s=answer.delay_s,
    )


_PlanKey = tuple[str, bytes, tuple[RawHeader, ...], bool, bool]


@attrs.define(eq=False, kw_only=True, slots=True)
class MockState:
    """What connections share.

    Attributes:
      open_connections: accepted and not yet closed.
      active_responses: requests read whose answers are not finished.
      total_requests: complete requests so far.
      total_connections: accepted so far.
    """

    recorder: Recorder | None = None
    require_key: str | None = attrs.field(default=None, repr=False)
    changes: Changes = attrs.field(factory=Changes)
    open_connections: int = 0
    active_responses: int = 0
    total_requests: int = 0
    total_connections: int = 0
    _plans: OrderedDict[_PlanKey, Plan] = attrs.field(factory=OrderedDict, init=False, repr=False)
    _failures: OrderedDict[str, int] = attrs.field(factory=OrderedDict, init=False, repr=False)

    def plan(self, request: Request) -> Plan:
        """The framed answer to *request*."""
        if self.require_key is not None and not _carries_key(request, self.require_key):
            return frame(self._refused_key(request), request)
        if request.method != "POST" or len(request.body) > _CACHED_BODY_BYTES:
            return frame(self._answer(request)[0], request)
        orders = tuple(header for header in request.headers if header[0].startswith(HEADER_PREFIX))
        key = (request.target, request.body, orders, request.keep_alive, request.chunked_ok)
        plan = self._plans.get(key)
        if plan is None:
            answer, cacheable = self._answer(request)
            plan = frame(answer, request)
            if cacheable and answer.reusable:
                self._plans[key] = plan
                if len(self._plans) > _CACHED_PLANS:
                    self._plans.popitem(last=False)
        return plan

    def _refused_key(self, request: Request) -> Answer:
        route = parse_route(request.target)
        fmt = route.format if route is not None else Format.OPENAI
        return error_answer(fmt, 401, "mock provider: missing or wrong API key")

    def _answer(self, request: Request) -> tuple[Answer, bool]:
        """The answer, and whether the same request will get the same one again."""
        if request.websocket:
            upgrade = [(b"upgrade", b"HTTP/1.1")]
            return error_answer(
                Format.OPENAI, 426, "mock provider: no WebSocket here, use POST", headers=upgrade
            ), False
        route = parse_route(request.target)
        if route is None:
            return error_answer(Format.OPENAI, 404, f"mock provider: no such path: {request.target[:200]}"), False
        if route.endpoint in (Endpoint.MODELS, Endpoint.HEALTH):
            return _listing(route, request), False
        if request.method != "POST":
            return error_answer(route.format, 405, "mock provider: use POST", headers=[(b"allow", b"POST")]), False
        if _header(request, b"content-encoding") not in (b"", b"identity"):
            return error_answer(route.format, 415, "mock provider: the body must not be compressed"), False
        try:
            ask = parse_ask(route, request.body)
            scenario = apply_headers(parse_model(ask.model), request.headers)
            current = self._now(scenario, ask)
            return make_answer(route, current, ask, request.body), scenario.times is None
        except (AskError, ValueError, OverflowError, RecursionError) as exc:
            # The latter three are numbers and nesting in a client's schemas that no answer can be made of.
            return error_answer(route.format, 400, f"mock provider: {exc}"), False

    def _now(self, scenario: Scenario, ask: Ask) -> Scenario:
        """*scenario*, or its healthy form once the model has failed often enough."""
        if scenario.times is None:
            return scenario
        failed = self._failures.pop(ask.model, 0)
        self._failures[ask.model] = failed + 1
        if len(self._failures) > _MAX_COUNTED_MODELS:
            self._failures.popitem(last=False)
        return scenario if failed < scenario.times else scenario.healthy()

    def forget_failures(self) -> None:
        """Start counting for ``times`` anew."""
        self._failures.clear()


def _header(request: Request, name: bytes) -> bytes:
    return next((value for key, value in request.headers if key == name), b"")


def _carries_key(request: Request, key: str) -> bool:
    wanted = key.encode()
    bearer = _header(request, b"authorization").removeprefix(b"Bearer ")
    given = (bearer, _header(request, b"x-api-key"), _header(request, b"x-goog-api-key"))
    return any(hmac.compare_digest(value, wanted) for value in given)


def _listing(route: Route, request: Request) -> Answer:
    if request.method not in ("GET", "HEAD"):
        return error_answer(route.format, 405, "mock provider: use GET", headers=[(b"allow", b"GET, HEAD")])
    body = b'{"status":"ok"}'
    if route.endpoint is Endpoint.MODELS:
        body = models_full(models_format(request.target, request.headers), route.model)
    return Answer(writes=(body,), length=len(body))
