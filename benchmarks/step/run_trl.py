"""TRL's GRPOTrainer as a contestant: `run_trl.py trl-GENERATION-BATCH`, with Polaris' embedded model, prompts and grader.

GENERATION is `generate` (model.generate) or `continuous` (transformers' continuous batching); BATCH sequences go through
one forward and backward pass.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from workload import LEARNING_RATE, MAX_RESPONSE_TOKENS, PROMPTS, SAMPLES, reserve_stdout

from polaris.embedded import resolve
from polaris.reward.pool import GraderPool


class Turnstile(TrainerCallback):
    """Lets one step through per line of stdin; `tokens` are counted by the reward function."""

    def __init__(self) -> None:
        self._answer = reserve_stdout()
        self.tokens = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not sys.stdin.readline():
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._answer({"response_tokens": self.tokens})


def main(generation: str, batch: int, output: str) -> None:
    model, turnstile = resolve("embedded:model"), Turnstile()
    rows = load_dataset("json", data_files=resolve("embedded:train"), split="train")
    dataset = rows.map(lambda row: {"prompt": [{"role": "user", "content": row["problem"]}]}, remove_columns=["problem", "id"])
    arguments = GRPOConfig(
        output_dir=output,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=PROMPTS * SAMPLES // batch,
        num_generations=SAMPLES,
        max_completion_length=MAX_RESPONSE_TOKENS,
        temperature=1.0,
        loss_type="dapo",
        epsilon_high=0.28,
        delta=3.0,
        beta=0.0,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        use_transformers_continuous_batching=generation == "continuous",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        logging_steps=1_000_000,
        disable_tqdm=True,
        max_steps=1_000_000,
    )
    with GraderPool(1, 5.0, True) as grader:

        def reward(completions: list[Any], answer: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
            turnstile.tokens = sum(map(len, completion_ids))
            texts = [completion[0]["content"] for completion in completions]
            return [verdict.reward for verdict in grader.grade(list(zip(texts, answer, strict=True)))]

        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        trainer = GRPOTrainer(model, reward, args=arguments, train_dataset=dataset, processing_class=tokenizer, callbacks=[turnstile])
        trainer.train()


if __name__ == "__main__":
    _, generation, batch = sys.argv[1].split("-")
    with tempfile.TemporaryDirectory() as folder:
        main(generation, int(batch), folder)
