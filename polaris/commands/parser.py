"""An argument parser whose errors are one or two lines and name the nearest option."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from polaris.config.names import instead, shown
from polaris.errors import Refused

_LONGEST = 160


class Parser(argparse.ArgumentParser):
    """Its subcommands are parsers of this class too."""

    def error(self, message: str) -> NoReturn:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - 40]} ... {message[-35:]}"
        known = message.endswith("?") or self._help() in message
        self.exit(2, f"polaris: {message}{'' if known else f'; {self._help()} lists what there is'}\n")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse, but each command itself refuses arguments left over, since it knows its options."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            name = left[0].partition("=")[0]
            option = name.startswith("-")
            self.error(f"{name} is unknown; {self._instead(name)}" if option else f"{shown(name)} is one argument too many")
        return found, left

    def _instead(self, name: str) -> str:
        options = [option for option in self._option_string_actions if option.startswith("--") and option != "--help"]
        return instead(name.replace("_", "-"), options, self._help())

    def _help(self) -> str:
        return f"`{self.prog} --help`"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"{shown(value)} is unknown; {instead(str(value), choices, self._help())}")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`, for commands that grade in processes."""
    parser.add_argument("--workers", type=count, metavar="N", help="grading processes (default: one per two cores)")


def count(text: str) -> int:
    """A whole number above 0, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0; correct it, or leave it out")
    return int(text)


def check_output(output: Path | None, source: Path) -> None:
    """Raise `Refused` for an `--output` that is not .jsonl, or that is the file `source` itself."""
    if output and output.suffix.lower() != ".jsonl":
        raise Refused(f"--output {output} must end in .jsonl, the format it is written in")
    if output and output.resolve() == source.resolve():
        raise Refused(f"--output {output} is the file that is read; give another file")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG and overrides of its values, for commands that take a run's configuration."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the run's configuration, such as configs/quickstart.toml")
    overrides = parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--section.key=value", help="values that override the file's"
    )
    overrides.required = False  # else argparse names it too if CONFIG is missing
