"""What can go wrong between here and the Hugging Face Hub, said in one line."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from bankintent.errors import SourceUnavailable

PROBE_SECONDS = 3.0


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, which can only mean one content."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def require_reachable(what: str, choices: str) -> None:
    """Fail within seconds where the Hub does not answer: its client would retry a refused connection for 23 to 47 s.

    With HF_HUB_OFFLINE=1 nothing is probed: the user asks for the cache.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    parts = urlsplit(
        os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or constants.ENDPOINT
    )
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError:
        raise SourceUnavailable(
            f"the Hub ({constants.ENDPOINT}) cannot be reached, so {what} cannot be loaded",
            f"Connect to it, set HF_HUB_OFFLINE=1 to use what is cached, or {choices}",
        ) from None


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the many errors of the Hub's client libraries into one SourceUnavailable with the cause's first line."""
    import httpx2  # what the Hub's client is built on
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, httpx2.HTTPError) as error:
        if "scripts are no longer supported" in str(error):
            raise SourceUnavailable(
                f"{what} is a loading script, which is not run",
                "Name a copy with Parquet, CSV or JSONL files",
            ) from None
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceUnavailable(
            f"{what} cannot be loaded: {cause}",
            "Check the name and the revision, or name a local file or folder",
        ) from None
