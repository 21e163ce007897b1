"""What is proposed for a source: its split, its regime, and what that is likely to cost."""

from dataclasses import dataclass

from bankintent.config import DataConfig
from bankintent.distribution import command, missing_package
from bankintent.errors import UserError
from bankintent.first_steps import choice, machine, recipes
from bankintent.first_steps.choice import Choice, Estimates
from bankintent.first_steps.estimate import Measured, estimate, gigabytes
from bankintent.first_steps.look import Look
from bankintent.process import cores
from bankintent.progress import waiting

PUBLISHING = (
    "Publishing, which checks and exports the model, takes some minutes on top: 1 to 3 for the"
    " embedded encoder on two cores."
)
"""What is not estimated: it depends on the formats, and hardly on the sentences."""


@dataclass(frozen=True)
class Proposal:
    """A source and what to do with it."""

    look: Look
    split_reason: str
    rare_reason: str
    """Empty where no intents are rare."""
    regime: Choice
    estimates: Estimates | None
    """By regime; None where nothing could be measured."""
    measured_note: str
    """What the estimates are, or why there are none."""
    at_least: str = ""
    """Stands before an amount of memory that is a lower bound."""


def propose(look: Look, given: DataConfig) -> Proposal:
    """Choose for a source; `given` are the keys that the user has set. It takes some seconds."""
    load = machine.load()
    measured = measure(look, machine.free_cores(load))
    work = choice.workload(look)
    estimates: Estimates | None = None
    free_memory = None
    at_least = ""

    if isinstance(measured, Measured):
        estimates = {}
        for regime, recipe in recipes.load_all(look.is_cross).items():
            estimates[regime] = estimate(recipe, measured, work)
        free_memory = measured.free_memory
        at_least = "at least " if measured.is_least_memory else "about "

    return Proposal(
        look=look,
        split_reason=choice.split_reason(look, given),
        rare_reason=choice.rare_reason(look),
        regime=choice.choose_regime(work, estimates, free_memory),
        estimates=estimates,
        measured_note=_describe(measured, load),
        at_least=at_least,
    )


def measure(look: Look, threads: int) -> Measured | str:
    """What the probe measures with so many threads; where it cannot, the reason."""
    recipe = recipes.load_all(look.is_cross)["lora"]
    try:
        with waiting("Measuring the encoder on some of the sentences"):
            # Late: torch takes seconds, which a bad source should not.
            from bankintent.first_steps import probe

            return probe.measure(recipe, look.texts, look.labels, threads)
    except UserError as error:
        return error.found
    # A package that is missing or broken: `doctor` says more.
    except ImportError as error:
        missing = missing_package(error, "train")
        if missing is not None:
            return str(missing)
        return f"{error}; {command('doctor')} says more"


def _describe(measured: Measured | str, load: float) -> str:
    """What the estimates are; `load` is that of the machine before the measurement."""
    if isinstance(measured, str):
        return f"No estimate of time and memory: {measured}"

    free = ""
    if measured.free_memory is not None:
        free = f"; {gigabytes(measured.free_memory)} of memory are free"
    busy = ""
    free_cores = machine.free_cores(load)
    if free_cores < cores():
        busy = (
            f" Other processes are busy (load {load:.1f} on {cores()} cores): set"
            f" OMP_NUM_THREADS={free_cores} while they are; an idle machine is faster."
        )
    return (
        f"Estimated from a measurement of some seconds on this machine ({measured.hardware},"
        f" {measured.precision}{free}), for training alone. {PUBLISHING}{busy}"
    )
