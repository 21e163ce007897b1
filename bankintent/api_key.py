"""The key of the API, as the server and its clients read it from the environment."""

import os
import re

from bankintent.errors import ConfigError

KEY_VARIABLE = "BANKINTENT_API_KEY"
"""Environment variable of the key: a secret belongs neither in a config file nor in the arguments
of a process, which other users can list."""

LINE_BREAK = re.compile(r"\r?\n\Z")
"""The end of a line, as files of secrets and the output of commands have it."""

KEY_FORM = re.compile(r"[!-~]+")
"""What a header can hold without loss: visible ASCII characters."""


def read_key() -> str | None:
    """The API key of this environment, None where none is set.

    One line break at its end is left out: a mounted secret or a file often has one. Raises
    ConfigError for a key that is empty, or that no header could hold as it is.
    """
    value = os.environ.get(KEY_VARIABLE)
    if value is None:
        return None

    # More likely a mistake of the deployment than the wish to need no key.
    if not value.strip():
        raise ConfigError(
            f"{KEY_VARIABLE} is set but empty", "Give it a value, or unset it to need no key"
        )

    key = LINE_BREAK.sub("", value)
    # The message does not show the key: it goes to logs.
    if not KEY_FORM.fullmatch(key):
        raise ConfigError(
            f"{KEY_VARIABLE} holds {_what_is_wrong(key)}, which no client can send in a header",
            "Use letters, digits and signs of ASCII without blanks",
        )
    return key


def _what_is_wrong(key: str) -> str:
    if not key.isascii():
        return "a character that is not ASCII"
    if any(character in key for character in "\r\n"):
        return "more than one line"
    if " " in key:
        return "a blank"
    return "a control character"
