"""Blocks: what a user types.

LAW: stands on ports and algorithms; names no engine and opens none. A file begins with Promise, What
can break it, Proved by: no promise, no block.
"""
