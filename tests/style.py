"""The rules of reading that an AST can check, one function a rule: each yields (line, what is wrong) of a module."""

import ast
from collections.abc import Callable, Iterator

LINES = 50
PARAMETERS = 6

Offence = tuple[int, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def offences(source: str, *, has_commands: bool = False) -> list[Offence]:
    """Every offence of a module, in the order of its lines.

    The parameters of a command are its options, each with its help: in a module that `has_commands`
    neither their number nor their lines count.
    """
    tree = ast.parse(source)
    found: list[Offence] = []
    for rule in RULES:
        found += rule(tree)
    found += long_functions(tree, has_commands)
    if not has_commands:
        found += many_parameters(tree)
    return sorted(found)


def nested_conditionals(tree: ast.AST) -> Iterator[Offence]:
    """A conditional expression inside another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            inner = [child for child in ast.walk(node) if child is not node]
            if any(isinstance(child, ast.IfExp) for child in inner):
                yield node.lineno, "a conditional expression inside another"


def long_comprehensions(tree: ast.AST) -> Iterator[Offence]:
    """A comprehension with more than one `for` or more than one `if`."""
    for node in ast.walk(tree):
        if isinstance(node, Comprehension):
            if len(node.generators) > 1:
                yield node.lineno, "a comprehension with more than one for"
            if sum(len(generator.ifs) for generator in node.generators) > 1:
                yield node.lineno, "a comprehension with more than one if"


def several_assignments(tree: ast.AST) -> Iterator[Offence]:
    """`a, b = x, y`, except where it swaps."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        if not any(isinstance(target, ast.Tuple) for target in node.targets):
            continue
        values = sorted(ast.unparse(value) for value in node.value.elts)
        for target in node.targets:
            names = ast.unparse(target).strip("()").split(", ")
            if sorted(names) != values:
                yield node.lineno, "several values assigned in one statement"


def long_functions(tree: ast.AST, has_commands: bool) -> Iterator[Offence]:
    """A function of more than LINES lines."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.end_lineno is not None:
            first = node.body[0].lineno if has_commands else node.lineno
            lines = node.end_lineno - first + 1
            if lines > LINES:
                yield node.lineno, f"{node.name} has {lines} lines, more than {LINES}"


def many_parameters(tree: ast.AST) -> Iterator[Offence]:
    """A function of more than PARAMETERS parameters; `self` and `cls` are none."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            arguments = node.args
            every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
            names = [argument.arg for argument in every if argument.arg not in ("self", "cls")]
            if len(names) > PARAMETERS:
                yield (
                    node.lineno,
                    f"{node.name} has {len(names)} parameters, more than {PARAMETERS}",
                )


RULES: tuple[Callable[[ast.AST], Iterator[Offence]], ...] = (
    nested_conditionals,
    long_comprehensions,
    several_assignments,
)
