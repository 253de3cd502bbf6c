"""What messages are made of: values and errors in one short line, without passwords."""

from __future__ import annotations

import json
import re
from pathlib import Path

from utils.args import ConfigError

MOST_TOLD = 30  # problems in one message

_HOST = r"(?:\[[^]@]*\]|[^][:@/?,]*)(?::[\d\s]*)?"
_OPTION = r"\w+=[^&;]*"  # an @ in a value is no end of a password
_MONGO_URL = re.compile(
    r"([\w+.-]+://|(?!.*://))(?:([^:@/?]*)(?::([^@/?]*))?@)?"
    rf"({_HOST}(?:,{_HOST})*(?:\?[^@]*|/[^@?]*(?:\?(?:[^@]*|{_OPTION}(?:[&;]{_OPTION})*))?)?)"
)
_OPTIONS_WITH_SECRETS = re.compile(r"([?&;]\w*password=)[^&;]*|(AWS_SESSION_TOKEN:)[^&;,]*", re.IGNORECASE)


def short(value: object, most: int = 24) -> str:
    """A configuration's value as a few characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"


def told(problems: list[str]) -> str:
    """Problems as the lines of one message; of many, the first ones."""
    rest = len(problems) - MOST_TOLD
    return "\n  ".join(problems[:MOST_TOLD] + ([f"and {rest} more"] if rest > 0 else []))


def shown(value: object) -> str:
    """A value in a message: its beginning, where it is long, and no password."""
    try:
        return short(without_passwords(repr(value)), 200)
    except ValueError:  # a number of more digits than Python writes
        return f"a {type(value).__name__} with too many digits"


def brief(error: BaseException, limit: int = 200) -> str:
    """An exception as one short line: pymongo's and wandb's messages run to pages."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{'…' if len(text) > limit else ''}"


def unwritable(path: str | Path, error: BaseException) -> ConfigError:
    """The ConfigError for a place that an OSError bars."""
    return ConfigError(
        f"{path}: cannot be written: {error}; make room or allow writing there, or start a new run "
        "with another local_results_path"
    )


def missing_package(wanted_by: str, requirement: str) -> ConfigError:
    """The ConfigError for an optional package, with its pip line. wanted_by: the key that asks for it."""
    package = requirement.split("==")[0]
    return ConfigError(f"{wanted_by} needs {package}; install it with: pip install {requirement}")


def without_password(url: str) -> str:
    """A mongo_url as it may be saved and told: with the user's name, without a password of any kind.

    Of a password that should be percent-encoded and is not, nothing stays either. An invalid address stays invalid.
    """
    scheme, user, password, rest = _parts(url)
    user = "" if user is None else f"{user}@"
    return _OPTIONS_WITH_SECRETS.sub(r"\1\2", scheme + user + rest)


def split_password(url: str) -> tuple[str, str | None]:
    """(a mongo_url without the password of its user, that password as it stands there or None)."""
    scheme, user, password, rest = _parts(url)
    return (scheme + rest if user is None else f"{scheme}{user}@{rest}"), password


def without_user(url: str) -> str:
    """A mongo_url without its user and passwords."""
    scheme, _, _, rest = _parts(without_password(url))
    return scheme + rest


def without_passwords(text: str) -> str:
    """A text without what may be a password in a URL in it; too much may go."""
    text = re.sub(r"(://?[^:@/\s]*):.*@", r"\1:***@", text, flags=re.DOTALL)  # a Path has one slash
    return _OPTIONS_WITH_SECRETS.sub(r"\1\2***", text)


def _parts(url: str) -> tuple[str, str | None, str | None, str]:
    """(scheme with ://, user, password, hosts and all after them) of a mongo_url."""
    found = _MONGO_URL.fullmatch(url)
    if found and (found[1] or found[2] is None):
        scheme, user, password, rest = found.groups()
        return scheme, user, password, rest
    scheme, there, rest = url.partition("://")
    if there and "@" in rest:  # the password holds what should be percent-encoded
        login, _, rest = rest.rpartition("@")
        user, colon, password = login.partition(":")
        return scheme + there, user, password if colon else None, rest
    scheme, rest = (scheme + there, rest) if there else ("", url)
    host, colon, _ = rest.partition(":")  # an invalid port, or a password without its host
    return scheme, None, None, host + colon + ("***" if colon else "")


def count(n: int, word: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Seconds in words: 12 s, 4 min, 3 h 20 min, 2 d 5 h."""
    if seconds is None:
        return "unknown"
    for unit, size, part, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            whole, rest = int(seconds // size), int(seconds % size // smaller)
            return f"{whole} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
