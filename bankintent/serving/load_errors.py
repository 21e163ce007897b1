"""Errors of loading a model, in one line."""

from bankintent import machine_errors
from bankintent.errors import UserError


def as_user_error(error: BaseException) -> UserError:
    """The error in one line, whatever its kind."""
    if isinstance(error, UserError):
        return error

    explanation = machine_errors.explain(error)
    if explanation is not None:
        return UserError(*explanation)
    return UserError(f"the model cannot be served: {type(error).__name__}: {error}")
