"""The command `atoll`: one file for each verb; argv in, sentences out.

Exit codes: 0 yes, 1 no, 2 wrong words, 3 could not ask, 4 not known.
"""
