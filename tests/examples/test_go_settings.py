"""How plugins in Go read their settings, which are YAML: the standard library of Go knows none."""

import random

import yaml

from cpa.abi import methods, wire
from cpa.config.schema import Isolation
from tests.examples.building import Example, Library
from tests.examples.hosting import Run, example, live, reconfigure, running


async def picked(run: Run, candidate: str) -> bool:
    """Whether these are the characters that the settings name."""
    request = wire.PickRequest(candidates=(wire.PickCandidate(id=candidate),))
    reply = await live(run).call(methods.SCHEDULER_PICK, request)
    assert not reply.handled or reply.auth_id == candidate
    return reply.handled


@example("scheduler", isolations=[Isolation.PROCESS])
async def test_settings_are_read_as_yaml(library: Library, plugin: Example, isolation: Isolation) -> None:
    """In every style in which a YAML writer puts them, beside values that nobody here reads."""
    rest: tuple[object, ...] = (
        None,
        7,
        True,
        ["a", {"b": "c: d"}],
        {"deep": {"er": ["x # y"]}},
        "two\nlines",
        "",
        [[]],
    )
    texts = (
        "a.json",
        "gr\u00fc\u00df: gott #1",
        "- x",
        "'",
        '"',
        "{",
        "null",
        "yes",
        "1.0",
        "two\nlines",
        "a\\b",
        "a\tb",
        "x" * 200,
    )
    dice = random.Random(6)
    async with running(library, plugin, isolation) as run:
        for number in range(200):
            text = dice.choice(texts)
            members = [
                ("auth_id", text),
                ("priority", dice.choice(rest)),
                ("a b", dice.choice(rest)),
                ("more", dice.choice(rest)),
            ]
            dice.shuffle(members)
            document = yaml.safe_dump(
                dict(members),
                sort_keys=False,
                allow_unicode=dice.random() < 0.5,
                default_flow_style=dice.choice((None, True, False)),
                default_style=dice.choice((None, None, "'", '"', "|", ">")),
                indent=dice.choice((2, 4)),
                width=dice.choice((20, 80)),
                explicit_start=dice.random() < 0.2,
                explicit_end=dice.random() < 0.2,
            )
            await reconfigure(run, document)
            assert await picked(run, text.strip()), (number, document)


@example("scheduler", isolations=[Isolation.PROCESS])
async def test_settings_as_people_write_them(library: Library, plugin: Example, isolation: Isolation) -> None:
    """Comments, continued lines, what is empty."""
    async with running(library, plugin, isolation) as run:
        for document, expected in (
            ("# nothing", None),
            ("", None),
            ("auth_id:", None),
            ("auth_id: ~ # none\ndeny: off", None),
            ("auth_id: a # a comment", "a"),
            ("auth_id: a#b", "a#b"),
            ("\ufeffauth_id: a:b\r\ndeny: False\r\n", "a:b"),
            ("auth_id: one\n  two\n\n  three # no more\ndeny: n", "one two three"),
            ("auth_id:\n    below", "below"),
            ('auth_id: "one\n  two"', "one two"),
            ('auth_id: "\\x61\\u0062\\U00000063 \\\n   d"', "abc d"),
            ("{auth_id: in braces, deny: false,} # end", "in braces"),
            ("list:\n- auth_id: x\n- y\nauth_id: after", "after"),
            ("map:\n  auth_id: x\n  # no\n\nauth_id: after", "after"),
            ("base: &anchor\n  a: 1\nauth_id: after\nagain: *anchor", "after"),
            ("--- # one document\nauth_id: x\n...\n", "x"),
            ("'auth_id' : 5", "5"),
        ):
            await reconfigure(run, document)
            found = await picked(run, expected or "a")
            assert found == (expected is not None), document
