"""Errors that a user can correct.

Each message says what was found, what was expected and what to do next.
"""


class UserError(Exception):
    """Something outside the program is wrong: a config, a file, a model, the network.

    It ends a command with code 2. The message is one line: what was found (and expected), then the
    next step.
    """

    exit_code = 2

    def __init__(self, found: str, next_step: str = "") -> None:
        sentences = []
        for part in (found, next_step):
            sentence = part.strip().rstrip(".")
            if sentence:
                sentences.append(sentence if sentence.endswith("?") else f"{sentence}.")

        # Causes from libraries may span lines; a message is one line.
        words = " ".join(sentences).split()
        super().__init__(" ".join(words))

        self.found = " ".join(found.split())
        """The message without its next step, for a place where another step comes next."""


class ConfigError(UserError):
    """A config file or a `--set` override is unusable."""


class DataError(UserError):
    """A dataset cannot be read, or does not hold what a step needs."""


class LabelError(UserError):
    """Data and model do not agree on the labels."""


class SourceUnavailable(UserError):
    """A dataset or a model cannot be reached, or does not exist there."""


class ModelError(UserError):
    """A checkpoint, bundle or backbone is unusable."""


class TrainingError(UserError):
    """Training cannot go on with these settings."""


class OutputError(UserError):
    """The place to write to holds something else, or cannot be written."""


class MissingPackage(UserError):
    """A package that a command needs is not installed: it comes with an extra."""


class ProcessEnded(UserError):
    """Another process of a run on several processes has ended, and says why by itself."""
