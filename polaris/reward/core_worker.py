"""A process that finds marked results: a user's regular expression and algebra on text that a policy writes may never end.

Started by `polaris.reward.rewards` as `python -m polaris.reward.core_worker SECONDS MARKER MOST`; in: {"response", "question",
"ground_truth"}; out: {"keys", "number"} of `Marked`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from polaris.reward.core_results import marked_results, result_key
from polaris.reward.worker import MEMORY_BYTES, serve


def main() -> None:
    serve(lambda: _prepare(sys.argv[2], int(sys.argv[3])), int(sys.argv[1]), MEMORY_BYTES)


def _prepare(marker: str, most: int) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)
    result_key("x+1")

    def reply(request: Mapping[str, Any]) -> dict[str, Any]:
        truth = request["ground_truth"]
        truth = tuple(truth) if isinstance(truth, list) else truth
        return asdict(marked_results(request["response"], request["question"], truth, marker, most))

    return reply


if __name__ == "__main__":
    main()
