"""Who says something that concerns one rank alone. Nothing slow is imported here: processes that start within a second say it too."""

from __future__ import annotations

import socket


def speaker(rank: int | str, where: str) -> str:
    """Rank, machine and where it was (`polaris.distributed.watch.where`), as in `polaris, rank 1 on node-3, in update, pack 1 of 2`."""
    return ", ".join(filter(None, (f"polaris, rank {rank} on {socket.gethostname()}", where)))
