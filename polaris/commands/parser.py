"""An argument parser whose errors are one line, as all of ours are."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Subcommands added to it are of this class too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"polaris: {message}; `{self.prog} --help` lists what there is\n")
