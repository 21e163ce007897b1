"""Items that wait in lanes, taken in turn, so that a long lane does not hold up a short one.

A fair queue in the sense of Nagle (RFC 970), with one item a turn.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class InLane(Protocol):
    """What waits in a lane."""

    lane: str


Waiting = TypeVar("Waiting", bound=InLane)


class Lanes(Generic[Waiting]):
    """First in, first out within a lane, and one of each lane in turn. With one lane, a queue."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Waiting]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, items: Sequence[Waiting]) -> None:
        """Add items, each at the end of its lane."""
        for item in items:
            self._lanes.setdefault(item.lane, deque()).append(item)
        self._count += len(items)

    def popleft(self) -> Waiting:
        """The first item of the lane whose turn it is; IndexError where there is none."""
        if not self._lanes:
            raise IndexError("no item waits")

        # A dictionary is in the order of insertion: the order of turns.
        lane = next(iter(self._lanes))
        items = self._lanes.pop(lane)
        item = items.popleft()
        self._count -= 1

        # An empty lane has no turn; others come to the end of the round.
        if items:
            self._lanes[lane] = items
        return item
