"""Fixtures of the end-to-end tests."""

from tests.native.fixtures import native

__all__ = ["native"]
