"""`reward.require_thinking = "auto"`, decided once for a run before anything is graded; all phases, ranks and resumed calls share it.

If the chat template leaves it to the model, the first tokens of a few responses of the base model decide, because a model opens thinking
at once or not at all. Their seeds are the run's, so the same call decides in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from polaris.checkpoint.run_folder import RunFolder
from polaris.config.schema import RunConfig
from polaris.data.digest import digest
from polaris.distributed.mesh import World
from polaris.model.identity import model_identity, model_settings
from polaris.results import Result
from polaris.reward.thinking import Thinking, by_responses, by_template, opens_thinking
from polaris.rollout.types import Engine, Sampling, spread_requests
from polaris.types import Prompt

RESPONSES, MOST_TOKENS = 32, 32


def settle_thinking(
    config: RunConfig, prompts: Sequence[Prompt], model: Path, tokenizer: PreTrainedTokenizerBase, engine: Engine, world: World
) -> Thinking:
    """What the configuration says, or what "auto" comes to; the same on every rank. The engine must serve the weights of `model`.

    It is kept in `stages/thinking.json` of the run's folder, where there is one, and in `config.json` once training begins. A run that
    has been trained keeps the rule that it was graded by, also if it is older than "auto".
    """
    if config.reward.require_thinking != "auto":
        return Thinking(required=config.reward.require_thinking, why="reward.require_thinking is set so")
    folder = RunFolder(config.folder)
    result = Result(folder.stages / "thinking.json", _depends_on(config, prompts, model) if world.is_main else {})
    known = world.gather([_known(folder, result)] if world.is_main else [])[0]
    if known is not None:
        return known
    mine = by_template(prompt.text for prompt in prompts) or by_responses(_draw(config, prompts, tokenizer, engine))
    decided = world.gather([mine] if world.is_main else [])[0]
    if world.is_main and folder.path.is_dir():
        result.write({"settings": result.depends_on, **asdict(decided)})
    return decided


def _depends_on(config: RunConfig, prompts: Sequence[Prompt], model: Path) -> dict[str, object]:
    return {**model_settings(config), "weights": model_identity(model)["weights"], "digest": digest(prompts), "seed": config.seed}


def _known(folder: RunFolder, result: Result) -> Thinking | None:
    """The rule of a run that has been trained; before training, the earlier decision if it depends on the same things."""
    record = folder.record() if folder.newest_checkpoint() else None
    if record and isinstance(record.config, RunConfig) and record.config.reward.require_thinking != "auto":
        return Thinking(required=record.config.reward.require_thinking, why="the run began so")
    decided = result.read_if_valid("required", "why")
    return Thinking(required=decided["required"], why=decided["why"]) if decided else None


def _draw(config: RunConfig, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, engine: Engine) -> list[bool]:
    """Whether each of a few responses, to prompts spread over all of them, opens thinking."""
    requests, by_id = spread_requests(prompts, RESPONSES, config.seed, "thinking"), {prompt.id: prompt.text for prompt in prompts}
    sampling = Sampling(temperature=1.0, max_tokens=min(MOST_TOKENS, config.longest_response))
    rollouts = engine.generate(requests, sampling, on_progress=lambda progress: None, should_stop=lambda: False)
    texts = tokenizer.batch_decode([rollout.tokens.tolist() for rollout in rollouts], skip_special_tokens=True)
    return [opens_thinking(text, by_id[request.prompt_id]) for text, request in zip(texts, requests, strict=True)]
