"""Neighbours: one file for each framework Atoll meets.

LAW: imports blocks, ports, errors, urls and its framework.
"""
