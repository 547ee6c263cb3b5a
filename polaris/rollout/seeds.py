"""The seed of one sample: a function of what is drawn, not of when or where it is drawn."""

from __future__ import annotations

from hashlib import blake2b


def request_seed(run_seed: int, stream: str, step: int, prompt_id: str, sample: int) -> int:
    """63-bit seed of sample `sample` of prompt `prompt_id` at step `step`; `stream` ("train", "eval") keeps uses apart."""
    fields = (str(run_seed), stream, str(step), prompt_id, str(sample))
    digest = blake2b(digest_size=8)
    for field in fields:
        data = field.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") >> 1
