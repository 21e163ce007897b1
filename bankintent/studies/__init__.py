"""Comparisons of many training runs: plan, run, analyse, report."""
