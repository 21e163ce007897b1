"""The decisions of one audit: each is in review.csv before it is confirmed."""

import threading
from pathlib import Path

from bankintent.audit import applying, review
from bankintent.audit.review import Decision, ReviewRow
from bankintent.errors import DataError


class Book:
    """An audit's rows, and what was decided of them so far.

    The table is read again before each change: a person may have it open in a spreadsheet, and what
    was saved there stays.
    """

    def __init__(self, folder: Path) -> None:
        manifest = applying.read_manifest(folder)
        self.folder = folder
        self.name = manifest.name
        self.intents = manifest.labels
        self.rows: list[ReviewRow] = review.read_rows(folder)
        self._place = {row.id: place for place, row in enumerate(self.rows)}
        # Handlers run in threads.
        self._lock = threading.Lock()
        self.read()

    def read(self) -> dict[str, Decision]:
        """What is decided, by row id; DataError where the table cannot be read."""
        return review.read_review(self.folder, self.rows, self.intents)

    def decide(self, row_id: str, decision: str, note: str) -> dict[str, Decision]:
        """Write a decision and a note, or take them back where they are empty; all decisions then.

        Raises DataError where there is no such row, or for a decision that is none.
        """
        if row_id not in self._place:
            raise DataError("this audit has no such row", "Reload the page")

        settled = Decision(review.settle(decision, set(self.intents), row_id), note)
        with self._lock:
            decisions = self.read()
            decisions.pop(row_id, None)
            if settled != Decision():
                decisions[row_id] = settled
            review.write_review(self.folder, self.rows, decisions)
        return decisions
