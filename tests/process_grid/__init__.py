"""One recipe on 1, 2 and 4 processes at different token budgets, for every conditioning and kinds of objectives.

`python -m tests.process_grid` is the long form; the suite runs a short one.
"""
