"""The Hugging Face Hub's failures, each turned into one line."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from bankintent.errors import SourceUnavailable

PROBE_SECONDS = 3.0
"""Longest wait for a connection: time enough for a slow one, and far less than the client's own."""


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, which can only mean one content."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def require_reachable(what: str, choices: str) -> None:
    """Raise SourceUnavailable within seconds where the Hub does not answer.

    Its client would retry a refused connection for 23 to 47 s. With HF_HUB_OFFLINE=1 nothing is
    probed: the user wants the cache.
    """
    # Late: it reads its environment variables when it is imported.
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return

    host, port = _first_hop(constants.ENDPOINT)
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError:
        raise SourceUnavailable(
            f"the Hub ({constants.ENDPOINT}) cannot be reached, so {what} cannot be loaded",
            f"Connect to it, set HF_HUB_OFFLINE=1 to use what is cached, or {choices}",
        ) from None


def _first_hop(endpoint: str) -> tuple[str, int]:
    """Host and port that a connection to the Hub is opened to: a proxy's, where one is set."""
    # Behind a proxy the Hub's own address may not even resolve.
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    parts = urlsplit(proxy or endpoint)
    default_port = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or default_port


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the many errors of the Hub's client libraries into one SourceUnavailable.

    Its message is the first line of the cause.
    """
    import httpx2  # the Hub's client is built on it
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    # `datasets`, transformers and PEFT each raise another of these for an unreachable Hub or a
    # missing repository; ValueError and RuntimeError also come from the files themselves.
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, httpx2.HTTPError) as error:
        text = str(error).strip()
        if "scripts are no longer supported" in text:
            raise SourceUnavailable(
                f"{what} is a loading script, which is not run",
                "Name a copy with Parquet, CSV or JSONL files",
            ) from None

        # Some errors have no text, and some have pages of it.
        cause = text.splitlines()[0] if text else type(error).__name__
        raise SourceUnavailable(
            f"{what} cannot be loaded: {cause}",
            "Check the name and the revision, or name a local file or folder",
        ) from None
