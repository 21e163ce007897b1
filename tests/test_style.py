"""How the package and the commands are written: the rules of tests/style.py hold on every line of them."""

from pathlib import Path

import pytest
from conftest import COMMANDS, REPOSITORY
from style import offences

WITH_COMMANDS = REPOSITORY / "bankintent" / "commands"


def checked_files() -> list[Path]:
    commands = [REPOSITORY / f"{name}.py" for name in COMMANDS]
    return [*commands, *sorted((REPOSITORY / "bankintent").rglob("*.py"))]


def test_the_package_and_the_commands_keep_the_rules_of_reading() -> None:
    files = checked_files()
    assert len(files) > 50

    lines = []
    for path in files:
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(REPOSITORY)
        for line, problem in offences(source, has_commands=path.parent == WITH_COMMANDS):
            lines.append(f"{name}:{line}: {problem}")
    assert not lines, "\n" + "\n".join(lines)


PARAMETERS = "def f(self, a, b, c, d, e, f): pass\ndef g(a, b, c, d, e, *, f, g): pass"
LONG = "def f():\n" + 50 * "    x = 1\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1 if a else 2", []),
        ("x = 1 if a else (2 if b else 3)", ["1: a conditional expression inside another"]),
        ("\nx = 1 if (a if b else c) else 3", ["2: a conditional expression inside another"]),
        ("x = [a for a in b if a]", []),
        ("x = {a: b for a in b for b in a}", ["1: a comprehension with more than one for"]),
        ("x = any(a for a in b if a if b)", ["1: a comprehension with more than one if"]),
        ("x = {a for a in (b for b in c)}", []),
        ("a, b = b, a", []),
        ("a[0], a[1] = a[1], a[0]", []),
        ("a, b = pair", []),
        ("pair = a, b", []),
        ("(a, b), c = pair, 1", ["1: several values assigned in one statement"]),
        ("a, b = 1, 2", ["1: several values assigned in one statement"]),
        ("self.a, self.b = a, b", ["1: several values assigned in one statement"]),
        (LONG, ["1: f has 51 lines, more than 50"]),
        (LONG.replace("    x = 1\n", "", 1), []),
        (PARAMETERS, ["2: g has 7 parameters, more than 6"]),
    ],
)
def test_the_rules_find_what_they_name(source: str, expected: list[str]) -> None:
    assert [f"{line}: {problem}" for line, problem in offences(source)] == expected


def test_the_parameters_of_commands_are_options() -> None:
    assert offences(PARAMETERS, has_commands=True) == []
    options = ",\n".join(f"    option_{number}: int" for number in range(60))
    assert offences(f"def main(\n{options},\n):\n    pass\n", has_commands=True) == []
    assert offences(LONG + "    pass\n", has_commands=True) == [(1, "f has 51 lines, more than 50")]
