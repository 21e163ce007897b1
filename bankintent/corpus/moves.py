"""How many rows stand in another split than in the former output of the same folder.

A former model has been trained on the rows that move from train to test: on this test split, it
would look better than it is.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from bankintent import console
from bankintent.corpus import dataset
from bankintent.corpus.dataset import MANIFEST
from bankintent.corpus.splits import Splits
from bankintent.errors import DataError, LabelError
from bankintent.files import JsonObject
from bankintent.texts import normalise

AGAINST_FORMER = "against_former"
"""Key of the manifest."""

SPLITS = ("train", "val", "test")

Place = tuple[str, str]
"""Split and label of a row."""

Places = dict[str, list[Place]]
"""Those of each text, by the normalised text."""


@dataclass(frozen=True)
class Moves:
    """What became of the rows of the former output. A row is known by its normalised text."""

    former_hash: str
    """data_hash of the former output."""
    former_record: JsonObject | None
    """What its manifest says about the output before it."""
    rows: int
    """Rows in both."""
    moved: dict[str, int]
    """Rows that changed their split, by `<former>/<split>`."""
    relabelled: int
    new: int
    gone: int

    def record(self, data_hash: str) -> JsonObject | None:
        """The entry of the manifest; a repeated ETL of the same data keeps the former entry."""
        if data_hash == self.former_hash:
            return self.former_record

        return {
            "data_hash": self.former_hash,
            "rows": self.rows,
            "moved": self.moved,
            "relabelled": self.relabelled,
            "new": self.new,
            "gone": self.gone,
        }


def against_former(splits: Splits, folder: Path) -> Moves | None:
    """Compare with the ETL output in `folder`; None where it holds none that can be read."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        former = dataset.load(folder)
        former_places = _read_places(former)
    except (DataError, LabelError):
        # Broken by hand: it is about to be replaced by a whole one.
        return None

    places = _find_places(splits)
    return _compare_places(former_places, places, former)


def _read_places(data: dataset.Dataset) -> Places:
    places: Places = defaultdict(list)
    for split in SPLITS:
        if data.is_cross and split != "train":
            continue
        part = data.read(split)
        for text, label in zip(part.texts, part.labels, strict=True):
            places[normalise(text)].append((split, data.labels.names[label]))
    return places


def _find_places(splits: Splits) -> Places:
    places: Places = defaultdict(list)
    for split, part in splits.items():
        for row in part:
            places[normalise(row.text)].append((split, row.label_text))
    return places


def _compare_places(former_places: Places, places: Places, former: dataset.Dataset) -> Moves:
    rows = 0
    relabelled = 0
    moved: Counter[str] = Counter()

    for text in former_places.keys() & places.keys():
        for before, after in _pair(former_places[text], places[text]):
            rows += 1
            relabelled += before[1] != after[1]
            if before[0] != after[0]:
                moved[f"{before[0]}/{after[0]}"] += 1

    return Moves(
        former_hash=former.hash,
        former_record=former.manifest.against_former,
        rows=rows,
        moved=dict(sorted(moved.items())),
        relabelled=relabelled,
        new=sum(map(len, places.values())) - rows,
        gone=sum(map(len, former_places.values())) - rows,
    )


def _pair(former: list[Place], current: list[Place]) -> list[tuple[Place, Place]]:
    """The rows of one text, former and current: first those that stay, then the others in order."""
    staying = Counter(former) & Counter(current)
    rest_before = sorted((Counter(former) - staying).elements())
    rest_after = sorted((Counter(current) - staying).elements())

    pairs = [(place, place) for place in staying.elements()]
    # One of the two may be longer: its last rows are new, or gone.
    pairs += list(zip(rest_before, rest_after, strict=False))
    return pairs


def show(moves: Moves | None) -> None:
    """Print what moved, in one line; nothing where there is no former output of such rows."""
    if moves is not None and moves.rows:
        console.say(describe_moves(moves))


def describe_moves(moves: Moves) -> str:
    """One sentence for people."""
    moved = sum(moves.moved.values())
    text = f"Against the former output: {moved:,} of {moves.rows:,} rows changed split"
    if moved:
        text += f", {_describe_learned(moves)}"

    counts = {"relabelled": moves.relabelled, "new": moves.new, "gone": moves.gone}
    others = [f"{count:,} {name}" for name, count in counts.items() if count]
    if others:
        text += f"; {', '.join(others)}"
    return f"{text}."


def _describe_learned(moves: Moves) -> str:
    """How many rows of test were trained on before."""
    learned = moves.moved.get("train/test", 0)
    if learned:
        return f"{learned:,} from train to test: models of the former data have trained on them"
    return "none from train to test"
