"""Free text out of a JSON object, as it comes (translation 2.6, 4.8)."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.translation.responses.custom_input import CustomInput


def unwrap(*pieces: str) -> tuple[list[str], str]:
    """(what each piece gave out, the whole)."""
    reader = CustomInput()
    return [reader.feed(piece) for piece in pieces], reader.finish()


def test_text_is_given_out_as_it_comes() -> None:
    """The client sees its tool's input grow."""
    assert unwrap('{"in', 'put": "*** Be', "gin\\n", '+x"', "}") == (["", "*** Be", "gin\n", "+x", ""], "*** Begin\n+x")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('{"input":"x"}', "x"),
        (' \n{ "input" : "x" , "other": 1 }', "x"),
        ('{"input":""}', ""),
        ('"only a string"', "only a string"),
        ("raw text", "raw text"),
        ('{"patch":"x"}', '{"patch":"x"}'),
        ('{"input":7}', '{"input":7}'),
        ('{"other":1,"input":"late"}', "late"),
        ("", ""),
        ('{"input":"cut o', "cut o"),
        ('{"input":"a\\u00e9\\ud83d\\ude00\\/\\"\\\\"}', 'aé😀/"\\'),
        ('{"input":"\\ud83dx"}', "\ufffdx"),
        ('{"input":"\\ude00"}', "\ufffd"),
        ('{"input":"\\ud83d\\u0041"}', "\ufffdA"),
        ('{"input":"\\q"}', "\\q"),
        ('{"input":"cut in an escape\\', "cut in an escape"),
        ('{"input":"cut in an escape\\u00', "cut in an escape"),
        ("{" + " " * 1000 + '"input":"x"}', "x"),
    ],
)
def test_whatever_the_pieces(text: str, whole: str) -> None:
    """Whole, byte by byte, and cut anywhere: the same; what was given out is how the whole begins."""
    for pieces in ([text], list(text), [text[:5], text[5:12], text[12:]]):
        given_out, found = unwrap(*pieces)
        assert found == whole
        assert whole.startswith("".join(given_out))


@given(st.text(), st.booleans(), st.lists(st.integers(0, 60), max_size=4))
def test_any_text_comes_back(text: str, ascii_only: bool, cuts: list[int]) -> None:
    """However JSON spells it, wherever it is cut."""
    text = text.encode("utf-8", "replace").decode()
    wrapped = json.dumps({"input": text}, ensure_ascii=ascii_only)
    places = [0, *sorted(min(cut, len(wrapped)) for cut in cuts), len(wrapped)]
    given_out, whole = unwrap(*(wrapped[start:end] for start, end in pairwise(places)))
    assert whole == text
    assert "".join(given_out) == text
