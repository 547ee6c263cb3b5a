"""The recipe on a real pretrained model and real tasks: difficulty, temperature zones, and training with all of it, without each element,
and without any, at the same budget of generated tokens.

    python benchmarks/recipe/real.py MODEL_FOLDER [ROOT] [SEEDS] [STEPS] [VARIANTS] [BUDGETS]

The tasks are those of configs/smollm2.toml, and every seed begins with the short fine-tuning of configs/smollm2-sft.toml on the form of
an answer. STEPS are those of the whole recipe's two stages (default 40,40); it sets a seed's budget, by the rules of `compare.py`. Beside
it stand the scores within the same seconds: of passes, probes and steps, as ordinary runs have measured them, without evaluations; what a
probe took is reckoned from the speed of the run's own rollouts. Pass rates and zones before and after plain GRPO are of a quarter of the
prompts and of 48 held-out ones. `polaris eval` and `polaris eval compare` then take the models of seed 0 to problems of another seed, at
a cool temperature and at 1. One run at a time, with all cores, or the GPU that there is; hours, so that VARIANTS may name some only, with
commas between. BUDGETS are the tokens of each seed in an earlier result, for VARIANTS without the whole recipe. All of it lies below ROOT
(default: runs/real), and a stopped command goes on. Results and pictures go to benchmarks/results/.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import ablation
import matplotlib
from compare import CONFIGS, REPOSITORY, RESULTS, Comparison, Runs, Scores, curve, generated, machine, polaris, write
from temperature import table as zones_table

from polaris.evaluation.compare import compare, lines
from polaris.observe.metrics import read_records
from polaris.results import Result

matplotlib.use("Agg")
from matplotlib import pyplot

RECIPE = """
[difficulty]
samples_per_prompt = 8
temperature = 1.0
stop_early = true

[curation]
drop_from = 1.0

[algorithm]
substitution = true
rescue = 1

[probe]
temperatures = [0.4, 0.7, 1.0, 1.2, 1.4, 1.6]
prompts = 24
tolerance = 0.2

[[stage]]
temperature = "probe"

[[stage]]
temperature = "probe"
"""
"""What the whole recipe adds to configs/smollm2.toml. Responses are short, so its stages have one length, and drop what has become easy.
So few prompts cannot tell the default tolerance, 1 % of an accuracy of 15 %, from none, and the probe would then take the coolest."""
WITHOUT = {name: options for name, options in ablation.WITHOUT.items() if name != "no stages"}
WITHOUT["no dropping after a stage"] = ["--stage.0.drop_above=1.0"]
WITHOUT["no difficulty filter"] = [*WITHOUT["no difficulty filter"], "--difficulty.stop_early=false"]
QUARTER = ["--difficulty.stop_early=false", "--data.options.size=192"]
PROBED = ["--probe.prompts=48", "--probe.temperatures=[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]"]
WHOLE, PLAIN = "whole recipe", "plain GRPO"
VARIANTS = {WHOLE: [], PLAIN: [option for options in WITHOUT.values() for option in options], **WITHOUT}


def main(model: Path, root: Path, seeds: int, steps: Sequence[int], names: Sequence[str], budgets: Sequence[float]) -> None:
    """Do what is missing, and write tables and pictures."""
    if (budgets and len(budgets) != seeds) or not (budgets or names[0] == WHOLE):
        raise SystemExit(f"BUDGETS: {len(budgets)} for {seeds} seeds; one for each, unless the variants begin with {WHOLE!r}")
    root.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        fine_tune(model, root, seed)
    (root / "recipe.toml").write_text((CONFIGS / "smollm2.toml").read_text() + RECIPE)
    options = [f"--model.path={root}/start-{{seed}}", "--eval.every=25", "--eval.temperature=1.0", "--checkpoint.every=25"]
    comparison = Comparison(
        config=root / "recipe.toml",
        options=options,
        variants={name: VARIANTS[name] for name in names},
        steps=steps,
        root=root,
        seeds=seeds,
        parallel=1,
        budgets=budgets,
    )
    runs, tokens = comparison.run()
    scores = {"At equal generated tokens": comparison.scores(runs, tokens), "Within equal seconds": within_seconds(runs)}
    measured = {"before": root / "start-0", "after": runs[PLAIN, 0]} if PLAIN in names else {}
    found = {name: measure(root, name, folder) for name, folder in measured.items()}
    path = RESULTS / f"real_{machine()[0]}_{date.today()}.png"
    draw(path, runs, found)
    parts = [f"\n![Learning curves and pass rates]({path.name})\n"]
    parts += [on_another_seed(root, {"start": root / "start-0"} | {name: folder for (name, seed), folder in runs.items() if not seed})]
    parts += [f"\n## {name.capitalize()} plain GRPO\n\n{told(facts)}" for name, facts in found.items()]
    asked = shlex.join(["MODEL_FOLDER", "ROOT", str(seeds), ",".join(map(str, steps)), ",".join(names), ",".join(map(str, budgets))])
    curves = {f"{name}, seed {seed}": curve(folder) for (name, seed), folder in runs.items()}
    title = f"The recipe on {model.name} and tasks of reasoning-gym"
    write(title, "real", asked, scores, tokens, "".join(parts), curves=curves, **found)


def fine_tune(model: Path, root: Path, seed: int) -> None:
    """The run in which the model is shown the form; problems that a training with this seed holds out are not in it."""
    command = [
        "sft",
        str(CONFIGS / "smollm2-sft.toml"),
        f"--model.path={model}",
        f"--root={root}",
        f"--name=start-{seed}",
        f"--seed={seed}",
    ]
    polaris(*command, f"--data.options.seed={seed}")


def measure(root: Path, name: str, model: Path) -> Mapping[str, Mapping]:
    """The difficulty pass and the temperature probe of a run's model."""
    options = [f"--root={root}", f"--name={name}", f"--model.path={model}"]
    for command, result, parts in (("difficulty", "difficulty.json", QUARTER), ("temperature", "temperature-1.json", PROBED)):
        if not (root / name / "stages" / result).exists():
            polaris(command, str(root / "recipe.toml"), *options, *parts)
    return {what: Result(root / name / "stages" / f"{what}.json").read() or {} for what in ("difficulty", "temperature-1")}


def seconds(folder: Path) -> dict[int, float]:
    """Seconds until each step: of difficulty pass, probes and steps."""
    difficulty = Result(folder / "stages" / "difficulty.json").read()
    steps = [record for record in read_records(folder / "metrics.jsonl") if "seconds/step" in record]
    speed = statistics.median(record["throughput/rollout_tokens_per_s"] for record in steps)
    total, tokens, found = (difficulty["seconds"], difficulty["tokens"], {}) if difficulty else (0.0, 0.0, {})
    until = dict(generated(folder))
    for record in steps:
        probed = until[record["step"]] - tokens - record["rollout/tokens"]
        tokens = until[record["step"]]
        total += probed / speed + record["seconds/step"]
        found[record["step"]] = total
    return found


def within_seconds(runs: Runs) -> Scores:
    """Held-out avg@n of the last evaluation within the seconds of the shortest run of a seed."""
    spent = {key: seconds(folder) for key, folder in runs.items()}
    limit = {seed: min(max(found.values()) for (_, other), found in spent.items() if other == seed) for _, seed in runs}
    scores: dict[str, list[float]] = {}
    for (name, seed), folder in sorted(runs.items(), key=lambda item: item[0][1]):
        reached = [accuracy for step, _, accuracy in curve(folder) if spent[name, seed].get(step, 0.0) <= limit[seed]]
        scores.setdefault(name, []).append(reached[-1])
    return {name: scores[name] for name in VARIANTS if name in scores}


def on_another_seed(root: Path, models: Mapping[str, Path]) -> str:
    """avg@4 of each model on problems of another seed, and whether it differs from the first model's and from plain GRPO's, in Markdown."""
    config = tomllib.loads((CONFIGS / "smollm2.toml").read_text())
    suite, tokens = config["data"]["path"], config["rollout"]["max_response_tokens"]
    options = [f"--set-option={name}={value}" for name, value in (config["data"]["options"] | {"size": 150, "seed": 1}).items()]
    text = "\n## On 150 problems of another seed\n\n"
    text += "Easy tasks repeat, so that some are also in the training set; each result.md says which.\n\n"
    text += f"`polaris eval --suite {suite} --samples 4 --top-k -1 --max-tokens {tokens} --prompt-suffix ''`\n"
    for temperature in (0.4, 1.0):
        folders = {name: root / f"new-{name.replace(' ', '-')}-{temperature}" for name in models}
        for name, model in models.items():
            command = ["eval", f"--model={model}", f"--suite={suite}", *options, f"--output={folders[name]}", "--samples=4"]
            polaris(*command, f"--temperature={temperature}", "--top-k=-1", f"--max-tokens={tokens}", "--prompt-suffix=")
        trained = [name for name in models if name != "start"]
        others = [name for name in trained if name != PLAIN] if PLAIN in trained else []
        for first, second in [("start", name) for name in trained] + [(name, PLAIN) for name in others]:
            compared = "\n".join(lines(compare(folders[first], folders[second]))).replace(f"{root}/", "")
            text += f"\nTemperature {temperature:g}, {second} beside {first}:\n\n{compared}\n"
    return text


def told(found: Mapping[str, Mapping]) -> str:
    """Pass rates and zones in Markdown."""
    histogram = ", ".join(f"{rate}: {count}" for rate, count in found["difficulty"]["histogram"].items())
    return f"Prompts by responses that solve them: {histogram}.\n\n{zones_table(dict(found['temperature-1']))}\n"


def draw(path: Path, runs: Runs, found: Mapping[str, Mapping[str, Mapping]]) -> None:
    """Learning curves over tokens, one for each seed, and the pass rates of what was measured."""
    figure, ((curves, *others),) = pyplot.subplots(1, 1 + bool(found), figsize=(6 + 6 * bool(found), 4.5), squeeze=False)
    for color, name in enumerate(VARIANTS):
        for (of, seed), folder in runs.items():
            if of == name:
                points = curve(folder)
                label = name if not seed else None
                curves.plot([p[1] / 1e3 for p in points], [100 * p[2] for p in points], color=f"C{color}", marker=".", label=label)
    curves.set(xlabel="generated tokens (thousands)", ylabel="held-out accuracy (%)")
    curves.legend(fontsize=8)
    for rates in others:
        for shift, (name, facts) in zip((-0.2, 0.2), found.items(), strict=True):
            counts = list(facts["difficulty"]["histogram"].values())
            rates.bar([index + shift for index in range(len(counts))], counts, width=0.4, label=f"{name} plain GRPO")
        rates.set(xlabel="responses of 8 that solve a prompt", ylabel="prompts")
        rates.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    given = sys.argv[1:]
    if not given:
        raise SystemExit(__doc__)
    place = Path(given[1]).absolute() if given[1:] else REPOSITORY / "runs" / "real"
    lengths = json.loads(f"[{given[3]}]") if given[3:] else [40, 40]
    chosen = given[4].split(",") if given[4:] else list(VARIANTS)
    tokens = json.loads(f"[{given[5]}]") if given[5:] else []
    main(Path(given[0]).absolute(), place, int(given[2]) if given[2:] else 1, lengths, chosen, tokens)
