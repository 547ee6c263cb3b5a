"""A run's folder with everything the recipe leaves, in the formats of its phases, without the hours they take."""

import json
import math
from dataclasses import asdict

import numpy as np

from polaris.algorithm.lengths import length_buckets
from polaris.algorithm.zones import find_zones
from polaris.data.selection import histogram, prompts_to_drop
from polaris.observe.metrics import MetricsFile
from polaris.observe.samples import RolloutRecorder, RolloutSample
from polaris.recipe.measured import Measured, numbers
from polaris.recipe.plan import plan_stages
from polaris.recipe.temperature_reading import Reading
from polaris.results import Result

LIMITS = (40_960, 53_248, 65_536)
GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
SAMPLES = 8


def recipe_run(folder, config, *, texts=("1 + 1 is 2.",), response_tokens=60):
    """`config` is a RunConfig with stages; every step keeps one rollout per text, as prompt and as response."""
    stages = plan_stages(config)
    (folder / "stages").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    _records(folder, stages)
    _prompts(folder / "stages", config)
    for stage in stages:
        _temperature(stage.temperature_result(folder / "stages"), stage.index)
        stage.result(folder / "stages").write({"step": stage.end, "drop_above": 0.9, "dropped": ["a", "b"], "left": 900 - stage.index})
    Result(folder / "stages" / "evaluation" / "step-000010" / "result.json").write(_evaluation())
    recorder = RolloutRecorder(folder)
    for step in range(1, config.steps + 1):
        recorder.write(step, [_sample(index, text, response_tokens) for index, text in enumerate(texts)])
    return folder


def _records(folder, stages):
    metrics, random = MetricsFile(folder / "metrics.jsonl"), np.random.default_rng(0)
    for stage in stages:
        limit = LIMITS[stage.index % 3]
        for step in range(stage.start + (stage.start > 0), stage.end + 1):
            lengths = np.minimum(limit, random.lognormal(math.log(limit / 3), 0.6, 1024)).astype(int)
            correct = (random.random(1024) < 0.5 + step / 4 / stages[-1].end) & (lengths < limit)
            buckets = length_buckets(lengths, correct, lengths == limit, limit)
            facts = {"length_mean": float(lengths.mean()), "clip_ratio": float((lengths == limit).mean()), **buckets}
            if step % 10 == 0:
                accuracy = float(correct.mean())
                held_out = {"eval/accuracy": accuracy, "eval/samples_per_prompt": 4, "eval/pass_at_k": 0.4 + accuracy / 2}
                metrics.append(
                    {"step": step, "stage": stage.index, **held_out, **{f"eval/response/{key}": value for key, value in facts.items()}}
                )
            if step > 0:
                metrics.append(_step(step, stage, facts, float(correct.mean()), random))


def _step(step, stage, facts, accuracy, random):
    informative = int(60 + 20 * random.random())
    return {
        "step": step,
        "stage": stage.index,
        "rollout/temperature": 1.2 + 0.1 * stage.index + (0.05 if stage.index == 2 and step > stage.start + 6 else 0),
        "rollout/diversity": 0.8 - 0.002 * step,
        **({"rollout/diversity_held": 0.74} if stage.index == 2 and step > stage.start + 3 else {}),
        "reward/mean": accuracy,
        "reward/accuracy": accuracy,
        "groups/informative": informative,
        "groups/all_right": 100 - informative,
        "groups/all_wrong": 28,
        "groups/substituted": 128 - informative,
        "rescue/groups": 9,
        "rescue/age_mean": 5.0 + random.random(),
        "rescue/age_max": 12,
        **{f"response/{key}": value for key, value in facts.items()},
        "policy/entropy": 0.4 + 0.1 * random.random(),
        "optimizer/grad_norm": 0.2 + 0.1 * random.random(),
        "seconds/rollout": 300.0 + step / 4,
        "seconds/update": 120.0,
        "seconds/step": 430.0 + step / 4,
        "throughput/rollout_tokens_per_s": 31_000.0,
        "memory/peak_gib": 68.2,
    }


def _prompts(stages, config):
    passed = [k for k, size in enumerate((300, 120, 90, 80, 80, 90, 110, 160, 600)) for _ in range(size)]
    rows = [
        Measured(id=f"p{i}", passed=k, count=SAMPLES, lost=0, tokens=SAMPLES * 9_000, clipped=int(k == 0)) for i, k in enumerate(passed)
    ]
    Result(stages / "difficulty.json").write({"settings": {}, **numbers(rows, SAMPLES, 41_000.0)})
    before = {row.id: (row.passed, row.count) for row in rows}
    dropped = prompts_to_drop(before, SAMPLES, config.curation, config.seed)
    after = {key: passes for key, passes in before.items() if key not in dropped}
    Result(stages / "curation.json").write({"settings": {}, "before": _numbers(before), "after": _numbers(after), "dropped": dropped})


def _numbers(measured):
    passes = list(measured.values())
    return {
        "prompts": len(measured),
        "histogram": {f"{k}/{SAMPLES}": size for k, size in enumerate(histogram(passes, SAMPLES))},
        "informative": sum(0 < k < n for k, n in passes),
        "accuracy": sum(k for k, _ in passes) / sum(n for _, n in passes),
    }


def _temperature(path, index):
    random = np.random.default_rng(index)
    level = np.array([0.58, 0.6, 0.61, 0.61, 0.6, 0.57, 0.52, 0.2])
    accuracy = np.clip(level[:, None] + random.normal(0, 0.25, 60) + random.normal(0, 0.01, (8, 60)), 0, 1)
    diversity = np.linspace(0.3, 0.82, 8)
    zones = find_zones(np.array(GRID), accuracy, diversity, np.full(len(GRID), 8), tolerance=0.01)
    readings = [
        asdict(
            Reading(
                temperature=t,
                accuracy=float(row.mean()),
                accuracy_low=float(row.mean()) - 0.06,
                accuracy_high=float(row.mean()) + 0.06,
                words=float(share),
                tokens=float(share) * 0.9,
                length_mean=9_000 * t,
                clip_ratio=0.02 * t,
                per_prompt=row.tolist(),
                samples=8,
                word_grams=0.7,
            )
        )
        for t, row, share in zip(GRID, accuracy, diversity, strict=True)
    ]
    settings = {"prompts": 60, "samples_per_prompt": 8, "diversity": "words", "tolerance": 0.01, "temperatures": (*GRID, 1.8)}
    if index == 0:
        result = {"temperature": zones.initial, "source": "probe", "diversity": 0.6, "zones": asdict(zones)}
    elif index == 1:
        readings = readings[4:7]
        result = {"temperature": 1.2, "source": "retune", "diversity": 0.65, "target": 0.6, "stopped": "diversity restored"}
    else:
        readings = readings[5:6]
        result = {"temperature": 1.2, "source": "fixed", "diversity": 0.65}
    Result(path).write({**result, "settings": settings, "readings": readings})


def _evaluation():
    def share(mean):
        return {"mean": mean, "low": mean - 0.08, "high": mean + 0.08}

    def one(mean):
        counts = {str(k): share(min(0.9, mean + 0.05 * i)) for i, k in enumerate((1, 2, 4, 8))}
        buckets = [
            {"from": 0, "below": 8_000, "responses": 60, "accuracy": 0.9, "clipped": 0.0},
            {"from": 8_000, "below": None, "responses": 0, "accuracy": None, "clipped": None},
        ]
        return {
            "problems": 30, "samples": 8, "avg": share(mean), "avg_recipe": share(mean - 0.01), "pass": counts, "maj": counts,
            "no_answer": 0.01, "ungradable": 0.0, "grader_killed": 0, "clipped": 0.03, "tokens": 7_000_000, "length_mean": 18_234.5,
            "buckets": buckets, "disagreements": [],
        }  # fmt: skip

    sets = {"aime24": one(0.81), "aime25": one(0.79), "olympiad": one(0.69)}
    return {"date": "2026-11-25T00:00:00+00:00", "grader": "3", "results": {"1": sets, "1.5": sets}}


def _sample(index, text, tokens):
    """The text with as many tokens as asked for, of one to five characters, most of them sure."""
    random = np.random.default_rng(index)
    chars = random.integers(1, 6, tokens)
    thinking = "".join(random.choice(list("abcdefghij +=\n"), int(chars.sum())))
    response = f"<think>{thinking}</think>{text}"
    sizes = (len("<think>"), *chars.tolist(), len("</think>"), *[1] * len(text), 0)
    logprobs = np.where(random.random(len(sizes)) < 0.75, -0.01, -random.exponential(1.5, len(sizes)))
    return RolloutSample(
        prompt=f"Question: {text}",
        response=response,
        ground_truth="2",
        verdict=("correct", "wrong", "no_answer")[index % 3],
        answer=text,
        reason=text[:20],
        reward=float(index % 3 == 0),
        advantage=0.5,
        finish_reason="stop",
        length=len(sizes),
        version=3,
        logprobs=tuple(logprobs.tolist()),
        token_chars=sizes,
    )
