"""Raft: one log, agreed on by a majority, as a machine without disk, network, clock or dice of its own."""
