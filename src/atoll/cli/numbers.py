"""Numbers in the words of a command, with their bounds: wrong ones are exit 2, before anything is begun."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """For argparse: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            bounds = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"found {text}; expected {bounds}")
        return value

    read.__name__ = "int"  # argparse names it in its own complaint
    return read


def seconds(text: str) -> float:
    """For argparse: 0 seconds or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}; expected 0 or more seconds")
    return value
