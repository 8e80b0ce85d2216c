"""One rule for the names that become part of a path: stages, branches, packs, studies and jobs.

A name consists of letters, digits and `_ - + . =` (packs and jobs also `,`), begins with a letter, a digit or `_`, and
has at most `LONGEST` characters.  It is therefore a single path component, never `..`, and needs no quoting in a shell.
"""

import re

from plasticity_jax.errors import ConfigError

LONGEST = 100  # file systems allow 255 bytes; this leaves space for prefixes and suffixes
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
_LIST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=,-]*")


def check(name: object, where: str, commas: bool = False) -> str:
    """Returns `name` if it is valid; with `commas` it may contain commas.

    Raises:
      ConfigError: it is not valid; the message begins with `where`.
    """
    rule = _LIST if commas else _NAME
    if not isinstance(name, str) or not rule.fullmatch(name):
        raise ConfigError(
            f"{where}: {shown(name)} is not a valid name; use only letters, digits and _ - + . ={' ,' * commas}, and "
            "begin with a letter, a digit or _"
        )
    if len(name) > LONGEST:
        raise ConfigError(f"{where}: {shown(name)} is too long for a name; use at most {LONGEST} characters")
    return name


def safe(text: str, commas: bool = False) -> str:
    """`text` with `_` for every character that a name cannot have; the result may still be too long."""
    replaced = re.sub(f"[^A-Za-z0-9_.+={',' * commas}-]", "_", text)
    return replaced if _LIST.fullmatch(replaced) else f"_{replaced}"


def check_key(key: str, where: str) -> str:
    """Returns `key` if it is valid as the name of a hyper-parameter, which becomes part of the names of runs.

    Raises:
      ConfigError: it is not valid; the message begins with `where`.
    """
    if not key or len(key) > 2 * LONGEST or "/" in key or not key.isprintable():
        raise ConfigError(f"{where}: {shown(key)} cannot be a hyper-parameter's name")
    return key


def shown(value: object, longest: int = 60) -> str:
    """`repr(value)`, shortened to `longest` characters, for error messages."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
