"""Raft: a store kept by three to seven processes of the user's own, with no other server."""
