"""What others may read: paths without the machine, addresses without passwords."""

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from bankintent.files import JsonObject

SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Environment variables whose values no message may show."""

MODEL_KEYS = ("model_name", "model")
"""Keys of configs that hold a name on the Hub or a folder."""

TRACKING = "tracking"
"""The section with the address of the tracking store, `uri`."""

FILE_URI = re.compile(r"(?P<scheme>sqlite|file):(?P<slashes>///)?(?P<path>[^?]+)")
"""A URI of a file or folder on this machine."""

SECRETS = (
    # A user and a password before the host of an address.
    (re.compile(r"(\w+://)[^/\s]+@"), r"\1***@"),
    (re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|secret|key)[^=&\s]*=)[^&\s]+"), r"\1***"),
)
"""Patterns of secrets in addresses, and what is shown in their place."""


def path(value: str) -> str:
    """A path relative to the working folder; of one outside of it the last part.

    Other text, such as a name on the Hub, is given back as it is.
    """
    if PureWindowsPath(value).drive and not PurePosixPath(value).is_absolute():
        return PureWindowsPath(value).name

    try:
        expanded = Path(value).expanduser()
    except RuntimeError:  # ~name of nobody
        return Path(value).name
    if not expanded.is_absolute() and ".." not in expanded.parts:
        return value

    # Not resolved: the target of a link is more of the machine than its name.
    absolute = Path(os.path.abspath(expanded))
    here = Path.cwd()
    if absolute.is_relative_to(here):
        return absolute.relative_to(here).as_posix()
    return absolute.name


def uri(value: str) -> str | None:
    """The address of a store as others may see it: of a file with its public path.

    None for a server: its address names a machine, and can hold a password.
    """
    local = FILE_URI.fullmatch(value.partition("?")[0])
    if local is None:
        return None if ":" in value else path(value)

    place = local["path"]
    if local["scheme"] == "file":
        place = unquote(place)
    return f"{local['scheme']}:{local['slashes'] or ''}{path(place)}"


def settings(values: JsonObject) -> JsonObject:
    """The values of a config as plain JSON, with public paths and addresses at any depth.

    `values` is what `model_dump()` gives. The address of a server is left out.
    """
    public: JsonObject = {}
    for key, value in values.items():
        if key == TRACKING and isinstance(value, dict):
            public[key] = _tracking(value)
        elif isinstance(value, dict):
            public[key] = settings(value)
        elif isinstance(value, Path):
            public[key] = path(str(value))
        elif key in MODEL_KEYS and isinstance(value, str):
            public[key] = path(value)
        else:
            public[key] = value
    return public


def _tracking(values: JsonObject) -> JsonObject:
    public = settings(values)
    address = uri(str(values["uri"]))
    if address is None:
        del public["uri"]
    else:
        public["uri"] = address
    return public


def without_secrets(text: str) -> str:
    """A text on one line, with `***` for passwords and tokens in its addresses."""
    # The words of a message of several lines stand in one line or one cell of a table.
    words = text.split()
    shown = " ".join(words)

    for name in SECRET_VARIABLES:
        secret = os.environ.get(name)
        if secret:
            shown = shown.replace(secret, "***")
    for pattern, replacement in SECRETS:
        shown = pattern.sub(replacement, shown)
    return shown
