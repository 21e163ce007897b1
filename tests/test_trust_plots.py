"""Pictures of trust are drawn for any model, also for one with nothing to show."""

from pathlib import Path

import numpy as np
import pytest

from bankintent.measures import calibration, selective, trust_plots

SCORES = np.linspace(0.2, 1.0, 40)
RIGHT = SCORES > 0.3


def test_pictures_survive_any_name_and_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    bins = calibration.reliability(SCORES, RIGHT, "equal-mass")
    calibrations = [
        trust_plots.Calibration("before $x$", bins, 0.1),
        trust_plots.Calibration("", [], 0.0),
    ]
    ranking = selective.rank(SCORES, RIGHT)
    curve = trust_plots.SelectiveCurve(
        "a $ b_$ {", selective.curve(ranking), selective.point_at_precision(ranking, 0.98)
    )
    nothing = trust_plots.SelectiveCurve("", [], selective.OperatingPoint(None, 0, 0, 0.0, None))

    for name in ("a", "b"):
        trust_plots.draw_calibrations(calibrations, tmp_path / f"{name}-calibration.png")
        trust_plots.draw_risk_coverage([curve, nothing], tmp_path / f"{name}-curve.png")
        trust_plots.draw_scores(SCORES, SCORES[:3], 0.4, tmp_path / f"{name}-scores.png")
    for picture in ("calibration", "curve", "scores"):
        first = (tmp_path / f"a-{picture}.png").read_bytes()
        assert first.startswith(b"\x89PNG")
        assert first == (tmp_path / f"b-{picture}.png").read_bytes()


@pytest.mark.parametrize("threshold", [None, -5.0])
def test_scores_of_one_kind_alone_can_be_drawn(threshold: float | None, tmp_path: Path) -> None:
    trust_plots.draw_scores(SCORES, np.empty(0), threshold, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").is_file()
