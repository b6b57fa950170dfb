"""Promises. One file for each kind of engine: its verbs, its values, what it claims.

LAW: Protocols, value types and promises only; imports errors and nothing else of ours. An ability
that only some engines have is an attribute that may be None (`store.leasing`), never a method that
raises, so a wrapper passes on exactly what it wraps.
"""
