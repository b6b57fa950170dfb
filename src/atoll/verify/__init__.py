"""`atoll verify`: breaks things on purpose, records what happened, and judges it.

LAW: may import every room; only urls (by name), cli and testing know it.
"""
