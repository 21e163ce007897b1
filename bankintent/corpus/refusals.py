"""Rows that cleaning left out: the reasons in words, and when leaving them out is an error."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bankintent.errors import DataError
from bankintent.texts import LISTED, list_some, shorten

MOST_REFUSED = 0.05
"""Share of a source's rows that `bad_rows: few` leaves out without an error."""

LONGEST_NAME = 40
"""Characters of a refused label that a message repeats."""


@dataclass(frozen=True)
class RefusedRow:
    """A record that was left out, and the reason as a short phrase."""

    id: str
    reason: str
    intents: tuple[str, ...] = ()
    """The intents that its label names, as far as that can be read."""
    line: int | None = None
    """The line of its file on which it begins, as an editor counts it; None where it has none."""

    @property
    def place(self) -> str:
        """Where to look for it."""
        if self.line is None:
            return self.id
        origin = self.id.rpartition(":")[0]
        return f"{origin} line {self.line}"


def require_allowed(bad_rows: str, refusals: list[RefusedRow], total: int, source: str) -> None:
    """Raise DataError where the key `bad_rows` does not allow so many refused rows of `total`."""
    if bad_rows == "fail":
        require_none(refusals)
    if bad_rows == "few":
        require_few(refusals, total, source)


def require_none(refusals: list[RefusedRow]) -> None:
    """Raise DataError that counts the reasons and names the first rows, where there are any."""
    if refusals:
        raise DataError(
            f"{len(refusals)} unusable rows ({describe_refused(refusals)})",
            "Correct them, or set bad_rows: drop",
        )


def require_few(refusals: list[RefusedRow], total: int, source: str) -> None:
    """Raise DataError where more than MOST_REFUSED of the `total` rows of a source are refused."""
    count = len(refusals)
    if count <= MOST_REFUSED * total:
        return

    raise DataError(
        f"{count:,} of the {total:,} rows of {source} cannot be used, more than"
        f" {100 * MOST_REFUSED:g} % ({describe_refused(refusals)})",
        "Correct them, or set bad_rows: drop to go on without them",
    )


def require_two_intents(
    counts: Counter[str], refusals: list[RefusedRow], source: str, *, has_columns: bool = True
) -> None:
    """Raise DataError that says what there is, and what was refused, where no two intents are.

    `has_columns` says that the source is a table.
    """
    if len(counts) >= 2:
        return
    if not counts and not refusals:
        expected = "a header line and rows below it" if has_columns else "sentences of two intents"
        raise DataError(f"{source} holds no rows", f"Expected {expected}")

    found = [f"{source} has fewer than two intents with usable rows"]
    for name, rows in counts.items():
        found.append(f'all {rows:,} are of "{name}"')
    if refusals:
        found.append(f"left out: {len(refusals):,} ({describe_refused(refusals)})")
    next_step = "Name the file or folder that has the other intents too with dataset_name"
    if has_columns:
        next_step = "Check its label column (label_column names another)"
    raise DataError("; ".join(found), next_step)


def require_every_intent(counts: Counter[str], refusals: list[RefusedRow]) -> None:
    """Raise DataError that names the intents all of whose rows were refused."""
    lost: Counter[str] = Counter()
    for refusal in refusals:
        lost.update(set(refusal.intents) - counts.keys())
    if not lost:
        return

    named = []
    for name, rows in lost.most_common():
        named.append(f'"{shorten(name, LONGEST_NAME)}" ({rows})')
    listed = list_some(named)
    intents = "intent has" if len(lost) == 1 else "intents have"
    of_them = [refusal for refusal in refusals if not lost.keys().isdisjoint(refusal.intents)]
    raise DataError(
        f"{len(lost)} {intents} no usable row: {listed}; {describe_refused(of_them)}",
        "Correct these rows, or set rare: drop to go on without the intents",
    )


def describe_refused(refusals: list[RefusedRow]) -> str:
    """The reasons, counted, and the first rows."""
    reasons = list_reasons(count_reasons(refusals))
    first = ", ".join([refusal.place for refusal in refusals[:LISTED]])
    return f"{reasons}, the first at {first}"


def count_reasons(refusals: Iterable[RefusedRow]) -> dict[str, int]:
    """Refused rows by their reason, the most frequent reason first."""
    counts = Counter(refusal.reason for refusal in refusals)
    return dict(counts.most_common())


def list_reasons(reasons: dict[str, int]) -> str:
    """Counted reasons as words, for example `2 x empty text, 1 x empty label`."""
    return ", ".join([f"{count} x {reason}" for reason, count in reasons.items()])
