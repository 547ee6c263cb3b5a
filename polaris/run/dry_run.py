"""`polaris train --dry-run`: what a configuration comes to, after all checks and before any weight is read."""

from __future__ import annotations

from polaris.checkpoint import layout
from polaris.checkpoint.run_folder import RunFolder
from polaris.observe.console import Console
from polaris.observe.phrases import ceiling
from polaris.run.banner import configured
from polaris.run.checks import Checked, max_model_len
from polaris.run.dry_plan import conclude, show_plan


def show(checked: Checked, ranks: int) -> None:
    """Print the facts, then the first prompt exactly as the model will read it.

    Raises `Refused` where the plan does not fit the GPUs of this machine."""
    console, prompt = Console(True, 0), checked.prompts.prompts[0]
    console.banner(configured(checked, ranks) | _plan(checked) | {"run": _folder(checked)})
    fault = show_plan(checked.config, checked.model.folder, "transformers" if checked.engine == "transformers" else None)
    print(f"\nthe first prompt ({prompt.source}, {len(prompt.tokens)} tokens):\n\n{prompt.text}\n")
    print(f"its ground truth: {prompt.ground_truth!r}")
    conclude(fault)


def _plan(checked: Checked) -> dict[str, str]:
    config = checked.config
    prompts, samples = config.trainer.prompts_per_step, config.rollout.samples_per_prompt
    epochs = config.steps * prompts / len(checked.prompts.prompts)
    difficulty = config.difficulty
    measured = difficulty.samples_per_prompt and difficulty.column is None
    most = ceiling(len(checked.prompts.prompts), difficulty.samples_per_prompt, config.difficulty_tokens)
    return ({"difficulty": most} if measured else {}) | {
        "steps": f"{config.steps} of {prompts} prompts x {samples} responses; {epochs:.2g} times through the prompts",
        "longest": f"{max_model_len(config)} tokens, {config.longest_response} of them the response",
    }


def _folder(checked: Checked) -> str:
    steps = layout.complete_steps(RunFolder(checked.config.folder).checkpoints)
    return f"{checked.config.folder} ({f'there is one, at step {steps[-1]}, which is resumed' if steps else 'new'})"
