"""Kills a training run at random, again and again, and holds what it ends with to an uninterrupted run, bit by bit.

`python -m tests.stress_resume --kills 50 --seed 0` is the long form; the suite runs a short one.
"""
