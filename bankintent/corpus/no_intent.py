"""Names of labels that mostly mean that no intent fits, and the key that says so."""

import difflib
import re
import shlex
from collections.abc import Sequence

import yaml

from bankintent.corpus.label_notes import bare_name

KEY = "out_of_scope_labels"

WORDS = frozenset(
    {
        *("fallback", "misc", "miscellaneous", "na", "none", "ood", "oos", "other", "others"),
        *("unclear", "unknown"),
    }
)
"""Words that say by themselves, or beside FILLERS, that no intent fits."""

PHRASES = frozenset(
    {"n/a", "nointent", "noneoftheabove", "notanintent", "outofdomain", "outofscope"}
)
"""Names of several words that say so, in the form of `bare_name`."""

FILLERS = frozenset(
    {
        *("categories", "category", "enquiries", "enquiry", "inquiries", "inquiry", "intent"),
        *("intents", "issue", "issues", "label", "question", "questions", "reason", "reasons"),
        *("request", "requests", "topic", "topics"),
    }
)
"""Words that change nothing of that: `other questions` is as little of an intent as `other`."""

BETWEEN_NAMES = re.compile(r"[/|,;:&+()\[\]]|\b(?:and|or)\b")
"""What stands between two names in one label, such as `Other / unclear`."""

NO_LETTERS = re.compile(r"[\W_]+")

MOST_SIMILAR = 3
LEAST_LIKENESS = 0.6
"""Share of two names that agrees, from which they are similar: that of difflib."""

SPECIAL = re.compile(r"[\"$`\\\\!]")
"""What a shell does not take as it stands between double quotes."""


def means_no_intent(name: str) -> bool:
    """Whether a label says that no intent fits: `oos`, `Other / unclear`, `other questions`.

    `unknown charge` says something of the charge, and is an intent.
    """
    if bare_name(name) in PHRASES:
        return True
    return any(_says_none(part) for part in BETWEEN_NAMES.split(name.casefold()))


def _says_none(part: str) -> bool:
    if bare_name(part) in PHRASES:
        return True
    words = _words(part) - FILLERS
    return bool(words) and words <= WORDS


def _words(name: str) -> set[str]:
    return set(NO_LETTERS.sub(" ", name.casefold()).split())


def override_of(names: Sequence[str]) -> str:
    """The option that names these labels, as a shell takes it."""
    value = yaml.safe_dump(
        list(names), default_flow_style=True, allow_unicode=True, width=float("inf")
    )
    setting = f"{KEY}={value.strip()}"
    quoted = shlex.quote(setting) if SPECIAL.search(setting) else f'"{setting}"'
    return f"--set {quoted}"


def similar_names(name: str, labels: Sequence[str]) -> list[str]:
    """The labels that are most like a name, or that share all of its words; best first."""
    wanted = bare_name(name)
    words = _words(name)
    ranked = []
    for label in labels:
        has_words = bool(words) and words <= _words(label)
        likeness = difflib.SequenceMatcher(a=wanted, b=bare_name(label)).ratio()
        if has_words or likeness >= LEAST_LIKENESS:
            ranked.append((has_words, likeness, label))

    ranked.sort(key=_best_first)
    return [label for _, _, label in ranked[:MOST_SIMILAR]]


def _best_first(found: tuple[bool, float, str]) -> tuple[bool, float, str]:
    has_words, likeness, label = found
    return not has_words, -likeness, label
