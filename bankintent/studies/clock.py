"""The time that a comparison has taken, and an estimate of the time that is left."""

import statistics
import time

from bankintent.studies.plan import PlannedRun, SizeName
from bankintent.studies.record import RunRecord


class StudyClock:
    """The times of runs by cell, from records and from the runs of this process."""

    def __init__(self, runs: list[PlannedRun]) -> None:
        self._started = time.monotonic()
        self._cell_seconds: dict[tuple[str, SizeName], list[float]] = {}

        for run in runs:
            path = run.find_record()
            if path is None:
                continue
            # A run that was continued has no time in its record.
            seconds = RunRecord.load(path).run_seconds
            if seconds is not None:
                self._seconds_of(run).append(seconds)

    def took(self, run: PlannedRun, seconds: float) -> None:
        """Note the time of one run."""
        self._seconds_of(run).append(seconds)

    def spent(self) -> str:
        """The time since the clock was made, for people."""
        return duration_text(time.monotonic() - self._started)

    def left(self, runs: list[PlannedRun], at_once: int = 1) -> str:
        """The time that `runs` may take, `at_once` of them side by side, for people.

        A run may take what its cell took before; where that is unknown, the mean of all runs.
        """
        all_seconds: list[float] = []
        for cell_seconds in self._cell_seconds.values():
            all_seconds += cell_seconds

        total = 0.0
        for run in runs:
            similar_seconds = self._seconds_of(run) or all_seconds
            # Before the first run of all there is nothing to take a mean of.
            if similar_seconds:
                total += statistics.fmean(similar_seconds)
        return f"about {duration_text(total / at_once)}"

    def _seconds_of(self, run: PlannedRun) -> list[float]:
        return self._cell_seconds.setdefault((run.recipe.slug, run.size), [])


def duration_text(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"

    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
