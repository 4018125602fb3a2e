"""Fixtures of compiled plugins' tests."""

from tests.native.fixtures import native

__all__ = ["native"]
