"""Places of a template in sentences, such as `{city}`: nobody says them, so a person should know.

Counted are `{name}`, `{{name}}` and `${name}`, names with a colon or a dot such as `@sys.date` and
`@city:city`, and `@name` and `$name` where the same one stands in several sentences. Neither `$5`
nor an e-mail address is one, and a single `@home` is how somebody writes.
"""

import re
from collections import Counter
from collections.abc import Iterable

BRACES = re.compile(r"\$?(?:\{\{\s*\w[\w .-]*\}\}|\{\s*\w[\w .-]*\})")

ENTITY = re.compile(r"(?<![\w@.+-])@[^\W\d][\w-]*(?:[.:][^\W\d][\w-]*)+")
"""The name of an entity in two parts, or an entity and the name that it gets."""

NAME = re.compile(r"(?<![\w@$.+-])[@$][^\W\d][\w-]*(?![\w.:@-]*\w)")
"""A name of one part, which may also be a person's or a share's."""

BLANKS = re.compile(r"\s+(?=\})|(?<=\{)\s+")
"""Blanks just inside braces."""

FEWEST = 3
"""Sentences with the same `@name` or `$name` from which on it is a place."""

MOST_SHOWN = 5


def count_places(texts: Iterable[str]) -> dict[str, int]:
    """Place -> how many of the sentences have it, the most frequent first."""
    counts: Counter[str] = Counter()
    names: Counter[str] = Counter()

    for text in texts:
        sure = _sure_places(text)
        counts.update(sure)
        # A set: one sentence with the same name twice is still one sentence.
        named = set(NAME.findall(text))
        names.update(named)

    for name, count in names.items():
        if count >= FEWEST:
            counts[name] += count

    ordered = counts.most_common()
    return dict(ordered)


def describe_places(texts: Iterable[str]) -> str | None:
    """A sentence about the places in these texts; None where they have none."""
    # They are gone through twice.
    kept = list(texts)

    counts = count_places(kept)
    if not counts:
        return None

    # A sentence with two places counts once, so the counts do not add up to this.
    sentences = 0
    for text in kept:
        found = _sure_places(text) | set(NAME.findall(text))
        if found & counts.keys():
            sentences += 1

    listed = _list_places(counts)
    return (
        f"Sentences with places of a template: {sentences:,}. They are learned as they are, and "
        f"nobody says them: {listed}."
    )


def _list_places(counts: dict[str, int]) -> str:
    """The most frequent places with their counts, and how many more there are."""
    first = list(counts.items())[:MOST_SHOWN]
    shown = [f"{place} ({count:,})" for place, count in first]

    more = len(counts) - MOST_SHOWN
    if more > 0:
        shown.append(f"{more:,} more")
    return ", ".join(shown)


def _sure_places(text: str) -> set[str]:
    """The places that need no second sentence; blanks inside braces do not count."""
    found = set(ENTITY.findall(text))

    for place in BRACES.findall(text):
        # `{ city }` and `{city}` are one place.
        tight = BLANKS.sub("", place)
        found.add(tight)

    return found
