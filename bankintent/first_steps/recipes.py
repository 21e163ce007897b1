"""The recommended recipe of each regime, as a config and as the text of its file."""

from pathlib import Path
from typing import get_args

from bankintent.config import Regime, TrainConfig
from bankintent.configfile import load
from bankintent.distribution import shipped

FOLDER = shipped("configs/recommended")

REGIMES: tuple[Regime, ...] = get_args(Regime)


def path_of(regime: str, is_cross: bool = False) -> Path:
    """The file of a regime's recipe; `is_cross` is whether cross-validation judges it.

    That data is small, for which there is a recipe of its own with a frozen encoder.
    """
    name = "small" if is_cross and regime == "head-only" else regime
    return FOLDER / f"{name}.yaml"


def load_all(is_cross: bool) -> dict[Regime, TrainConfig]:
    """The recipe of each regime; ConfigError where one is missing or unusable."""
    recipes = {}
    for regime in REGIMES:
        recipes[regime] = load(TrainConfig, path_of(regime, is_cross))
    return recipes


def lines_of(path: Path) -> list[str]:
    """The lines of a recipe, without the comment at its head."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
