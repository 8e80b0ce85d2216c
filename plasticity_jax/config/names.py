"""Names that become part of a path: of stages, branches, packs, studies and jobs.  One rule for all of them.

A name is letters, digits and `_ - + . =` (packs and jobs also `,`), begins with a letter, a digit or `_`, and has at
most `LONGEST` characters: so it is one whole entry of a directory, never `..`, and nothing that a shell could misread.
"""

import re

from plasticity_jax.errors import ConfigError

LONGEST = 100  # file systems take 255 bytes, and something may stand before or after a name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_LIST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=,-]*")


def check(name: object, where: str, commas: bool = False) -> str:
    """`name`, if it is one.

    Raises:
      ConfigError: it is not; the error begins with `where`.
    """
    rule = _LIST if commas else _NAME
    if not isinstance(name, str) or not rule.fullmatch(name):
        raise ConfigError(
            f"{where}: {shown(name)} is no name; a name has letters, digits and _ - + . ={' ,' * commas} only, and "
            "begins with one of the first three"
        )
    if len(name) > LONGEST:
        raise ConfigError(f"{where}: {shown(name)} is too long for a name; take at most {LONGEST} characters")
    return name


def safe(text: str, commas: bool = False) -> str:
    """`text` with `_` for all that a name cannot have; it may be too long."""
    replaced = re.sub(f"[^A-Za-z0-9_.+={',' * commas}-]", "_", text)
    return replaced if _LIST.fullmatch(replaced) else f"_{replaced}"


def check_key(key: str, where: str) -> str:
    """`key`, if a hyper-parameter can be called so: it becomes part of the names of runs.

    Raises:
      ConfigError: it cannot; the error begins with `where`.
    """
    if not key or len(key) > 2 * LONGEST or "/" in key or not key.isprintable():
        raise ConfigError(f"{where}: {shown(key)} cannot be a hyper-parameter's name")
    return key


def shown(value: object, longest: int = 60) -> str:
    """A value from anywhere, so that it fits into one line."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
