"""The two ways in which a command ends without its result and without a traceback; whoever starts it prints the message."""

from __future__ import annotations


class Refused(ValueError):
    """What the user asked for cannot be done; the message says why and names the remedy. Exit status 2."""


class RunFailed(RuntimeError):
    """The run cannot go on; the message says why, and what was finished is on disk. Exit status 1."""


def in_one_line(error: BaseException | str, longest: int = 300) -> str:
    """What another library's error says, of many lines or none, for a message of ours."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= longest else f"{words[:longest]}..."
