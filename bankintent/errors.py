"""The errors that a user can cause, each saying what was found, what was expected and what to do next."""


class UserError(Exception):
    """Something outside the program is wrong: a config, a file, a model, the network. Ends a command with code 2.

    The message is one line: what was found (and expected), then the next step.
    """

    exit_code = 2

    def __init__(self, found: str, next_step: str = "") -> None:
        parts = [part.strip().rstrip(".") for part in (found, next_step) if part.strip()]
        super().__init__(" ".join(" ".join(f"{part}." for part in parts).split()))


class ConfigError(UserError):
    """A config file or a `--set` override does not say something usable."""


class DataError(UserError):
    """A dataset cannot be read, or does not hold what a step needs."""


class LabelError(UserError):
    """Data and model do not agree on the labels."""


class SourceUnavailable(UserError):
    """A dataset or a model cannot be reached or does not exist where it was looked for."""


class ModelError(UserError):
    """A checkpoint, bundle or backbone is unusable."""


class TrainingError(UserError):
    """Training cannot go on with these settings."""


class OutputError(UserError):
    """The place to write to holds something else, or cannot be written."""
