"""Which split and which regime suit a source, each with its reason in a sentence."""

from dataclasses import dataclass

from bankintent.config import DataConfig, Regime
from bankintent.first_steps.estimate import MINUTE, Estimate, Workload, about, gigabytes
from bankintent.first_steps.look import CROSS, TRAIN_ONLY, Look

LEAST_ROWS = 1000
"""Training sentences from which it is worth it to train the encoder: with fewer, a head on a frozen
encoder was as good on BANKING77 (docs/results)."""

MOST_SECONDS = 20 * MINUTE
"""Longest training that is proposed; who has more time can have the other regimes."""

Estimates = dict[Regime, Estimate]


@dataclass(frozen=True)
class Choice:
    """What is proposed, and why."""

    name: str
    reason: str


def workload(look: Look) -> Workload:
    """How much there is to train of a source."""
    intents = len(look.labels)
    if not look.is_cross:
        return Workload(look.train_rows, look.val_rows, intents)

    config = look.config
    return Workload(look.train_rows, 0, intents, config.folds, config.repeats)


def split_reason(look: Look, given: DataConfig) -> str:
    """Why a source is divided as it is; `given` are the keys that the user has set."""
    if given.split is not None:
        return "as it was asked for"

    sentences = f"{len(look.texts):,} sentences"
    match look.division.name:
        case "official":
            return "the source has a test split of its own"
        case "cross":
            return f"{sentences} are too few to hold out a test split, so all are trained on"
        case _ if given.asks_for_test_split:
            return "test_split was given"
        case _:
            return f"{sentences} without a test split of their own"


def rare_reason(look: Look) -> str:
    """Why rare intents are only trained on; empty where none are."""
    rare = look.report.rare
    if rare.policy != TRAIN_ONLY or not rare.rows or look.division.name == CROSS:
        return ""

    lacking = "too few rows to stand in every split"
    if len(rare.rows) == 1:
        return f"1 intent has {lacking}; it is trained on and not tested"
    return f"{len(rare.rows)} intents have {lacking}; they are trained on and not tested"


def choose_regime(
    work: Workload, estimates: Estimates | None, free_memory: int | None = None
) -> Choice:
    """LoRA where there are sentences, time and memory for it; otherwise a head alone.

    `estimates` are None where nothing could be measured.
    """
    rows = f"{work.train_rows:,} training sentences"
    if estimates is None:
        return Choice("head-only", f"{rows}; how long LoRA would take could not be measured")

    head = about(estimates["head-only"].seconds)
    lora = estimates["lora"]
    times = f"it takes {head}, LoRA would take {about(lora.seconds)}"
    if work.folds:
        judged = f"judged by cross-validation it trains {work.trainings} times"
        return Choice("head-only", f"{rows}; {judged}: {times}")
    if work.train_rows < LEAST_ROWS:
        return Choice(
            "head-only",
            f"{rows}, fewer than the {LEAST_ROWS:,} from which LoRA is worth it; {times}",
        )
    if lora.seconds > MOST_SECONDS:
        limit = f"more than the {MOST_SECONDS // MINUTE} min up to which it is proposed"
        return Choice("head-only", f"{rows}; {times}, {limit}")
    if free_memory is not None and lora.memory > free_memory:
        needed = f"LoRA needs {gigabytes(lora.memory)}, and {gigabytes(free_memory)} are free"
        return Choice("head-only", f"{rows}; {needed}")

    return Choice(
        "lora", f"{rows}, enough to train the encoder: {about(lora.seconds)}; head-only {head}"
    )
