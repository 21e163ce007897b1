"""Time and memory of training with a recipe, computed from what a probe has measured."""

from dataclasses import dataclass

from bankintent.config import Regime, TrainConfig

MINUTE = 60
HOUR = 60 * MINUTE
GIGABYTE = 10**9


@dataclass(frozen=True)
class Measured:
    """What the probe has measured on this machine, with sentences of the user."""

    load_seconds: float
    """To load the encoder."""
    forward_seconds: float
    """Of one sentence through the frozen encoder."""
    step_seconds: dict[Regime, float]
    """Of one sentence in a training step; for head-only on cached features."""
    memory: dict[Regime, int]
    """Bytes: the peak after training steps of each regime."""
    is_least_memory: bool
    """Whether batches were smaller than those of training: then memory is a lower bound."""
    free_memory: int | None
    """Bytes that were free before; None where that is not known."""
    precision: str
    hardware: str


@dataclass(frozen=True)
class Workload:
    """How much there is to train."""

    train_rows: int
    val_rows: int
    intents: int
    folds: int = 0
    """Parts that cross-validation holds out in turn; zero where a split is held out."""
    repeats: int = 1

    @property
    def trainings(self) -> int:
        """One for each held-out part, and the one that is published."""
        return self.folds * self.repeats + 1


@dataclass(frozen=True)
class Estimate:
    """What training with one recipe is likely to cost."""

    seconds: float
    memory: int
    """Bytes."""


def estimate(recipe: TrainConfig, measured: Measured, work: Workload) -> Estimate:
    """Time and memory of all trainings that a recipe takes; publishing is not part of it."""
    seconds = training_seconds(recipe, measured, work)
    if work.folds:
        held_out = work.train_rows // work.folds
        fold = Workload(work.train_rows - held_out, held_out, work.intents)
        fold_seconds = training_seconds(recipe, measured, fold)
        seconds += work.folds * work.repeats * fold_seconds

    # One training after another: the memory is that of one.
    memory = measured.memory[recipe.regime]
    return Estimate(seconds, memory)


def training_seconds(recipe: TrainConfig, measured: Measured, work: Workload) -> float:
    """Of one training: passes of the frozen encoder, training steps, validation after epochs."""
    every_row = work.train_rows + work.val_rows
    read_rows = frozen_passes(recipe) * every_row
    if recipe.regime != "head-only":
        # An encoder that learns has to read the validation rows anew after each epoch.
        read_rows += recipe.epochs * work.val_rows

    trained_rows = recipe.epochs * work.train_rows
    trained_rows += contrastive_rows(recipe, work.intents)

    reading = read_rows * measured.forward_seconds
    training = trained_rows * measured.step_seconds[recipe.regime]
    return measured.load_seconds + reading + training


def frozen_passes(recipe: TrainConfig) -> int:
    """How often an encoder that does not learn reads all rows."""
    is_probed = recipe.head_init == "probe"
    if recipe.contrastive is not None:
        # Before the stage, and where a probe follows it, after it.
        return 1 + int(is_probed)

    is_cached = recipe.regime == "head-only"
    return int(is_probed or is_cached)


def contrastive_rows(recipe: TrainConfig, intents: int) -> int:
    """Sentences in all steps of the contrastive stage; 0 without one."""
    section = recipe.contrastive
    if section is None:
        return 0

    # A batch has no more intents than there are.
    intents_a_step = min(section.intents, intents)
    return section.steps * intents_a_step * section.sentences


def about(seconds: float) -> str:
    """An estimate of time for people, no more precise than it is: `about 40 s`, `about 12 min`."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 95:
        tens = max(10, round(seconds, -1))
        return f"about {tens:.0f} s"

    minutes = seconds / MINUTE
    if seconds < 20 * MINUTE:
        return f"about {minutes:.0f} min"
    if seconds < 1.5 * HOUR:
        fives = round(minutes / 5)
        return f"about {5 * fives} min"

    hours = seconds / HOUR
    if seconds < 10 * HOUR:
        return f"about {hours:.1f} h"
    return f"about {hours:.0f} h"


def gigabytes(count: float) -> str:
    """Bytes for people: `0.9 GB`."""
    amount = count / GIGABYTE
    return f"{amount:.1f} GB"
