"""Multi-Paxos: a log agreed on slot by slot; `messages` are its words, `member` is the machine."""
