"""The language of an export: which one is read where it has sentences in several.

`en` stands for the sentences in `en`, and where there are none so marked, for those in all its
forms, such as `en-us` and `en_GB`. A form with a region stands for itself.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bankintent.errors import DataError
from bankintent.texts import list_some

MOST = 0.9
"""Share of the sentences from which on a language is read without being asked for."""

FEWEST_INTENTS = 2
"""Intents that a language needs to be worth reading: a bot in one language often greets in all."""

UNNAMED = "none"
"""What the key `language` calls sentences that name no language."""


@dataclass(frozen=True)
class Choice:
    """The languages that are read: one, or several forms of one."""

    names: frozenset[str]
    """As the export writes them; "" for sentences that name none."""
    left: dict[str, int]
    """The sentences in other languages, in words."""
    notes: tuple[str, ...]
    """What people should know of it."""


@dataclass
class Languages:
    """The sentences of an export, by the name of their language; "" where they name none."""

    counts: Counter[str] = field(default_factory=Counter)
    intents: dict[str, set[str]] = field(default_factory=dict)

    def add(self, language: str, intent: Any, count: int = 1) -> None:
        """Count sentences of an intent."""
        self.counts[language] += count
        if count:
            self.intents.setdefault(language, set()).add(str(intent))

    def choose(self, path: Path, wanted: str | None) -> Choice:
        """The languages to read of the export at `path`; `wanted` is the configured one.

        Raises DataError where none is wanted and there are several of some weight, and where there
        is no sentence in the wanted one.
        """
        names = [name for name, count in self.counts.items() if count]
        if names in ([], [""]):
            # Nothing is told of the language: whatever is wanted, it is these sentences.
            return Choice(frozenset(self.counts), {}, ())

        chosen = self._forms(wanted or self._main(path))
        if not chosen:
            raise DataError(
                f"{path} has no sentences in {wanted}; its languages are {self._listed()}",
                f"Choose one of them, for example --set language={self._ranked()[0]}",
            )
        others = [name for name in names if name not in chosen]
        notes = [*_forms_note(chosen), *self._others_note(chosen, others, wanted)]
        return Choice(frozenset(chosen), self._left(others), tuple(notes))

    def _forms(self, wanted: str) -> list[str]:
        """The names for which a name stands, sorted."""
        plain = _plain("" if wanted.lower() == UNNAMED else wanted)
        names = sorted(name for name, count in self.counts.items() if count)
        exact = [name for name in names if _plain(name) == plain]
        return exact or [name for name in names if _base(name) == plain]

    def _main(self, path: Path) -> str:
        """The language to read where none is wanted, without its region."""
        ranked = self._ranked()
        worth = [base for base in ranked if self._count_intents(base) >= FEWEST_INTENTS]
        if len(worth) == 1:
            return worth[0]

        total = self.counts.total()
        first = ranked[0]
        if len(ranked) == 1 or self._count(first) >= MOST * total:
            return first
        raise DataError(
            f"{path} has sentences in {len(ranked)} languages: {self._listed()}",
            f"Choose one, for example --set language={first}",
        )

    def _ranked(self) -> list[str]:
        """The languages without their regions, those with the most sentences first."""
        bases = {_base(name) or UNNAMED for name, count in self.counts.items() if count}
        # One with a name comes before one without.
        return sorted(bases, key=lambda base: (-self._count(base), base == UNNAMED, base))

    def _names_of(self, base: str) -> list[str]:
        return [name for name in self.counts if (_base(name) or UNNAMED) == base]

    def _count(self, base: str) -> int:
        return sum(self.counts[name] for name in self._names_of(base))

    def _count_intents(self, base: str) -> int:
        intents: set[str] = set()
        for name in self._names_of(base):
            intents |= self.intents.get(name, set())
        return len(intents)

    def _listed(self, names: Iterable[str] | None = None) -> str:
        """Languages with their sentences, the most frequent first."""
        kept = self.counts if names is None else names
        ordered = sorted(kept, key=lambda name: (-self.counts[name], name))
        named = [f"{_show(name)} ({self.counts[name]:,})" for name in ordered if self.counts[name]]
        return list_some(named)

    def _left(self, others: list[str]) -> dict[str, int]:
        count = sum(self.counts[name] for name in others)
        if len(others) == 1:
            return {f"sentences in {_show(others[0])}": count}
        return {f"sentences in {len(others)} other languages": count} if others else {}

    def _others_note(self, chosen: list[str], others: list[str], wanted: str | None) -> list[str]:
        """What is said where a language has been chosen that nobody asked for."""
        if not others or wanted is not None:
            return []
        count = sum(self.counts[name] for name in chosen)
        return [
            f"Sentences in {' and '.join(map(_show, chosen))} are read, {count:,} of "
            f"{self.counts.total():,}; the others are in {self._listed(others)} "
            "(the key language names another)."
        ]


def _forms_note(chosen: list[str]) -> list[str]:
    if len(chosen) == 1:
        return []
    return [
        f"Sentences in {list_some(chosen)} are read as one language (--set language={chosen[0]} "
        "reads one of them)."
    ]


def _plain(language: str) -> str:
    return language.lower().replace("_", "-")


def _base(language: str) -> str:
    """A language without its region: en of en-US."""
    return _plain(language).split("-")[0]


def _show(language: str) -> str:
    return language or UNNAMED
