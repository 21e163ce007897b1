"""What was tried of one kind of fault, and what gave way."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """The situations of one kind."""

    kind: str
    tried: int = 0
    gave_way: list[str] = field(default_factory=list)
    """The situations that did not hold, each with what came out."""

    def add(self, situation: str, fault: str | None) -> None:
        """Count one situation; `fault` says what came out where it did not hold, else None."""
        self.tried += 1
        if fault is not None:
            self.gave_way.append(f"{situation}: {fault}")

    def lines(self) -> list[str]:
        """A line with the counts, then one for each situation that gave way."""
        counts = f"{self.kind}: {self.tried} tried, {len(self.gave_way)} gave way"
        return [counts, *(f"  {line}" for line in self.gave_way)]
