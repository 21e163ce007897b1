"""Faults done on purpose: kills, damaged files, hostile requests. What must hold is in each module.

`python -m tests.faults` runs every kind, `python -m tests.faults kills --count 20` one. Each module
has `run(count)`, which tries at most `count` situations of its kind and returns a `Tally`; `make
test` tries a few of each.
"""
