"""Nearly the same sentences with different intents, and names that are nearly the same."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bankintent.audit.answers import Answers
from bankintent.audit.rows import AuditRows
from bankintent.corpus.near import near_pairs
from bankintent.texts import normalise


@dataclass(frozen=True)
class Contradiction:
    """A row whose text another row nearly has, with another intent."""

    row: int
    """Whose label loses: its intent is the less likely one of the two for both texts together."""
    other: int
    similarity: float
    """1 where the texts are the same but for case, spaces and punctuation."""


def find_contradictions(rows: AuditRows, answers: Answers) -> list[Contradiction]:
    """For each row that loses to a nearly identical one, the most similar such pair.

    Of two intents that one has more which more of the nearly identical rows have; of equals the one
    that the models find likelier for both texts.
    """
    sentences = _Sentences.of(rows)
    best: dict[int, Contradiction] = {}
    for a, b, similarity in sentences.disputes():
        votes = sentences.votes[a] + sentences.votes[b]
        for first, second in sentences.opponents(a, b):
            loser = _loser(first, second, rows.rows.labels, votes, answers)
            winner = second if loser == first else first
            text = a if loser in sentences.rows[a] else b
            for row in sentences.copies(text, rows.rows.labels[loser]):
                known = best.get(row)
                if known is None or similarity > known.similarity:
                    best[row] = Contradiction(row, winner, similarity)
    return [best[row] for row in sorted(best)]


def _loser(
    first: int, second: int, labels: Sequence[int], votes: Counter[int], answers: Answers
) -> int:
    """The row of two whose intent has less for it; of equals the second."""
    both = answers.probabilities[first] + answers.probabilities[second]
    strength = [(votes[labels[row]], both[labels[row]]) for row in (first, second)]
    return first if strength[0] < strength[1] else second


@dataclass(frozen=True)
class _Sentences:
    """The different texts of the rows, and which intents their like have."""

    rows: list[list[int]]
    """Of each text, the rows that have it."""
    labels: list[dict[int, list[int]]]
    """The same by label."""
    votes: list[Counter[int]]
    """Of each text, the labels of its own rows and of those of nearly the same texts."""
    near: list[tuple[int, int, float]]
    """Two texts that are nearly the same and do not have one label in all."""

    @classmethod
    def of(cls, rows: AuditRows) -> "_Sentences":
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, text in enumerate(rows.rows.texts):
            rows_of[normalise(text)].append(row)

        labels: list[dict[int, list[int]]] = []
        for own_rows in rows_of.values():
            by_label: dict[int, list[int]] = defaultdict(list)
            for row in own_rows:
                by_label[rows.rows.labels[row]].append(row)
            labels.append(by_label)

        own = [Counter({label: len(found) for label, found in one.items()}) for one in labels]
        votes = [Counter(counts) for counts in own]
        near = []
        for pairs in near_pairs(list(rows_of)):
            ends = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
            for (a, b), similarity in zip(ends, pairs.similarity.tolist(), strict=True):
                votes[a].update(own[b])
                votes[b].update(own[a])
                if len(own[a] | own[b]) > 1:
                    # 1 means the same text, so rounding must not reach it.
                    near.append((a, b, min(round(similarity, 3), 0.999)))
        return cls(list(rows_of.values()), labels, votes, near)

    def disputes(self) -> Iterator[tuple[int, int, float]]:
        """Texts with two labels, as pairs with themselves, then the pairs of near texts."""
        for text, by_label in enumerate(self.labels):
            if len(by_label) > 1:
                yield text, text, 1.0
        yield from self.near

    def opponents(self, a: int, b: int) -> Iterator[tuple[int, int]]:
        """Two rows for each two different labels of two texts; copies have one row for all."""
        for label, found in self.labels[a].items():
            for other, others in self.labels[b].items():
                if label != other:
                    yield min(found[0], others[0]), max(found[0], others[0])

    def copies(self, text: int, label: int) -> list[int]:
        """The rows of a text that have this label."""
        return self.labels[text][label]


def alike_names(rows: AuditRows) -> list[dict[str, int]]:
    """Groups of names that differ by case, spaces or punctuation alone, with their rows."""
    counts = dict.fromkeys(rows.names, 0)
    for label in rows.rows.labels:
        counts[rows.names[label]] += 1

    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name, count in counts.items():
        groups[normalise(name).replace(" ", "")][name] = count
    return [group for group in groups.values() if len(group) > 1]
