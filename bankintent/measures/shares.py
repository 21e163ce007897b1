"""Shares from 0 to 1 as text: in per cent, and differences of them in points."""


def in_percent(share: float) -> str:
    """A share with two decimals, for example `93.50 %`."""
    return f"{100 * share:.2f} %"


def in_short_percent(share: float) -> str:
    """A share in per cent with two digits that count, 100 % only for all of it."""
    if share == 1:
        return "100 %"
    if share >= 0.01:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.2g} %"


def in_points(share: float) -> str:
    """A difference of shares in points, with two decimals and no minus before a zero."""
    text = f"{100 * share:.2f}"
    if text == "-0.00":
        return "0.00"
    return text
