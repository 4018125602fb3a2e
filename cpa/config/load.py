"""Configuration files to `Config`: everything that is wrong is reported at once, or the whole file is good.

Reading goes in three steps, one module each: text to nodes with lines (``document``), nodes to typed values
(``fields``, ``kinds``), values to the schema (``sections``, ``providers``, ``payload``). None of them stops at a
mistake, and none of them puts a secret into a message. Environment variables in values are not expanded.
"""

import hashlib
from pathlib import Path

import attrs

from cpa.config.document import MAX_DOCUMENT_BYTES, parse_document
from cpa.config.nodes import Findings, MappingNode, is_null
from cpa.config.schema import Config
from cpa.config.sections import read_config
from cpa.errors import ConfigError, ConfigProblem


@attrs.frozen(kw_only=True)
class Loaded:
    """A file that was read without problems.

    Attributes:
      warnings: complete lines, as those of `ConfigError.problems`, about what is ignored.
      digest: SHA-256 of the file's bytes, 64 hexadecimal digits.
    """

    config: Config
    warnings: tuple[str, ...] = ()
    digest: str


def digest_of(data: bytes) -> str:
    """What `Loaded.digest` of a file with the bytes *data* is."""
    return hashlib.sha256(data).hexdigest()


def parse_config(text: bytes | str, *, file: str) -> Loaded:
    """Read a configuration from memory; *file* is its name in messages.

    Raises: ConfigError with every problem.
    """
    findings = Findings(file=file)
    document = parse_document(text, findings)
    config = read_config(document, findings) if document is not None else Config()
    if findings.problems:
        raise ConfigError(findings.problems, findings.details)
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return Loaded(config=config, warnings=findings.warnings, digest=digest_of(data))


def syntax_problems(data: bytes, *, file: str) -> tuple[ConfigProblem, ...]:
    """Why *data* is no YAML mapping of keys to values at all; empty when it is one, whatever is in it.

    Nothing at all counts as a problem here: nobody means to forget everything.
    """
    findings = Findings(file=file)
    document = parse_document(data, findings)
    if document is None:
        return findings.details
    if not data.strip():
        findings.problem(1, "", "expected a configuration, got nothing")
    elif document.root is not None and not is_null(document.root) and not isinstance(document.root, MappingNode):
        findings.problem(document.root.line, "", "expected a mapping of keys to values, got something else")
    return findings.details if not isinstance(document.root, MappingNode) else ()


def load_config(path: Path) -> Loaded:
    """Read the configuration file *path*. Blocking: call it before Trio runs, or in a worker thread.

    Raises: ConfigError with every problem; a file that cannot be read is one.
    """
    return parse_config(read_bytes(path), file=str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of *path*, no more of them than a configuration may have, and one.

    Raises: ConfigError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as exc:
        raise ConfigError([f"{path}:1: expected a readable file, got {exc.strerror or type(exc).__name__}"]) from exc
