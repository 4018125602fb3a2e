"""Fixtures of the end-to-end tests."""

import pytest

pytest.register_assert_rewrite("tests.e2e.corpus")

from tests.native.fixtures import native  # noqa: E402 - what is rewritten has to be named before it is imported

__all__ = ["native"]
