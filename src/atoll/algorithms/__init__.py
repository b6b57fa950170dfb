"""Algorithms that have a name in the literature.

LAW: pure. Nothing here waits, reads a clock, rolls a die or imports another room; errors excepted.
"""
