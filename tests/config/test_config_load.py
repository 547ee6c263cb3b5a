import ast
import dataclasses
import json
import operator
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from polaris.config import schema
from polaris.config.algorithm import AlgorithmConfig
from polaris.config.data import DataConfig, SetConfig
from polaris.config.load import _build, changed_fields, describe_fields, dump_config, load_config, load_job, read_dumped
from polaris.config.peers import ABSENT, ELSEWHERE
from polaris.config.recipe import FinalConfig
from polaris.config.rollout import RolloutConfig
from polaris.config.schema import RunConfig
from polaris.config.sft import SftConfig
from polaris.config.training import TrainerConfig

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_toml_then_overrides(tmp_path):
    path = write(tmp_path, "seed = 3\n[rollout]\ntemperature = 1\n[data]\nchat_template_options = { enable_thinking = true }\n")
    config = load_config(path, ["--rollout.max_response_tokens=17", "--algorithm.loss=gspo", "--deterministic=True"])
    assert config.seed == 3
    assert config.rollout.temperature == 1.0
    assert isinstance(config.rollout.temperature, float)
    assert config.rollout.max_response_tokens == 17
    assert config.algorithm.loss == "gspo"
    assert config.deterministic is True
    assert config.data.chat_template_options == {"enable_thinking": True}


def test_lists_are_tuples(tmp_path):
    path = write(tmp_path, "[data]\nstrict = true\ndecontaminate = ['a.parquet', 'b']\n")
    config = load_config(path, [])
    assert config.data.decontaminate == ("a.parquet", "b")
    assert config.data.strict is True
    assert load_config(path, ['--data.decontaminate=["c"]', "--data.strict=False"]).data == DataConfig(decontaminate=("c",))
    assert load_config(path, ["--data.decontaminate", "[]"]).data.decontaminate == ()
    assert changed_fields(config, dump_config(config)) == []
    assert changed_fields(config, dump_config(RunConfig()))[0] == "data.decontaminate: [] -> ['a.parquet', 'b']"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    numbers: tuple[float, ...] = ()
    pair: tuple[int, str] = (0, "")
    loss: tuple[Literal["dapo", "grpo"], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    names: dict[str, str] | None = None
    options: dict[str, bool | int | str] = dataclasses.field(default_factory=dict)


def test_values_of_a_table_are_converted_and_checked_one_by_one(tmp_path):
    found = _build(Tables, {"weights": {"a": 1}, "options": {"b": True, "c": "x"}}, "f.toml", Tables)
    assert found == Tables(weights={"a": 1.0}, options={"b": True, "c": "x"})
    with pytest.raises(ValueError, match=r"f\.toml: names\.a = 3 must be of type str"):
        _build(Tables, {"names": {"a": 3}}, "f.toml", Tables)
    with pytest.raises(ValueError, match=r"names = 'a' must be of type dict, or left out"):
        _build(Tables, {"names": "a"}, "f.toml", Tables)
    path = write(tmp_path, "[data]\nchat_template_options = { a = 'x' }\n")
    given = ["--data.chat_template_options.a=false", "--data.chat_template_options.b=5", "--data.chat_template_options.c=true"]
    assert load_config(path, given).data.chat_template_options == {"a": False, "b": "5", "c": True}
    assert load_config(path, ["--data.chat_template_options={a='y'}"]).data.chat_template_options == {"a": "y"}


def test_a_chat_template_is_text_or_a_file_beside_the_configuration(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    path = write(tmp_path, "[model]\nchat_template = 'chat.jinja'\n")
    for given in ([], [f"--model.chat_template={tmp_path / 'chat.jinja'}"], ["--model.chat_template={{ messages }}"]):
        config = load_config(path, given)
        assert config.model.chat_template == "{{ messages }}"
        assert read_dumped(json.loads(dump_config(config)), "config.json") == config
    with pytest.raises(ValueError, match=r"model\.chat_template = 'none\.jinja': there is no file .*none\.jinja"):
        load_config(path, ["--model.chat_template=none.jinja"])


def test_tables_of_sets_are_read_and_overridden_one_by_one(tmp_path):
    (tmp_path / "mine.py").touch()
    path = write(
        tmp_path, "[data]\ncolumns = { prompt = 'q' }\n[[data.sets]]\npath = 'a'\n[[data.sets]]\npath = 'mine:f'\noptions = { n = 3 }\n"
    )
    config = load_config(path, ["--data.sets.0.weight=2", "--data.sets.1.weight=0.5", "--data.sets.1.options.n=4", "--data.columns.id=uid"])
    assert config.data.columns == {"prompt": "q", "id": "uid"}
    assert config.data.sets[0] == SetConfig(path="a", weight=2.0)
    assert config.data.sets[1] == SetConfig(path=f"{tmp_path}:mine:f", weight=0.5, options={"n": 4})
    recorded = json.loads(dump_config(config))
    assert recorded["data"]["sets"][1]["path"] == "mine:f"
    assert read_dumped(recorded, "config.json").data.sets[0] == config.data.sets[0]
    for override, message in (
        ("--data.sets.weight=1", r"write --data\.sets\.0\.weight=value for the first"),
        ("--data.sets.2.path=a", "there is no table 2; the file has 2, counted from 0"),
        ("--data.sets.0.wight=1", r"--data\.sets\.0\.wight is unknown; did you mean 'weight'\?"),
    ):
        with pytest.raises(ValueError, match=message):
            load_config(path, [override])


@pytest.mark.parametrize("key", ["rollout.max_response_tokens", "final.suite", "stage.0.steps"])
def test_sections_that_only_train_has_are_named_as_such_in_sft(tmp_path, key):
    path = write(tmp_path, "[data]\npath = 'a.jsonl'\n")
    with pytest.raises(
        ValueError, match=f"--{key.split('.')[0]} is unknown; that is a section of `polaris train`, and `polaris sft` has none"
    ):
        load_job(SftConfig, path, [f"--{key}=3"])


def test_items_of_a_list_are_converted_and_checked_one_by_one():
    section = _build(Section, {"numbers": [1, 2.5], "pair": [3, "x"], "loss": ["grpo"]}, "f", Section)
    assert section == Section(numbers=(1.0, 2.5), pair=(3, "x"), loss=("grpo",))
    assert isinstance(section.numbers[0], float)
    for values, message in (
        ({"numbers": [1, "x"]}, r"f: numbers\[1\] = 'x' must be of type float"),
        ({"numbers": [True]}, r"f: numbers\[0\] = True must be of type float"),
        ({"pair": [3]}, r"f: pair = \[3\] must have 2 items"),
        ({"loss": ["ppo"]}, r"f: loss\[0\] = 'ppo' is not one of 'dapo', 'grpo'"),
    ):
        with pytest.raises(ValueError, match=message):
            _build(Section, values, "f", Section)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme = 'x'", "nme is unknown; did you mean 'name'"),
        ("[rollout]\ntemperatur = 1.0", "rollout.temperatur is unknown; did you mean 'temperature'"),
        ("[optimizer]\nlearning_rate = 1e-6", "optimizer.learning_rate is unknown; here it is optimizer.lr"),
        ("trainer = 3", "trainer is a table"),
        ("[trainer]\nsteps = 'many'", "steps = 'many' must be of type int"),
        ("[trainer]\nsteps = true", "must be of type int"),
        ("[algorithm]\nloss = 'ppo'", "'ppo' is not one of 'dapo'"),
        ("[rollout]\ntop_k = 20", "rollout.top_k would make the sampled distribution differ"),
        ("[rollout]\ntop_p = 0.9\nmin_p = 0.1", "rollout.top_p, rollout.min_p"),
        ("[rollout]\nrepetition_penalty = 1.1", "repetition_penalty"),
        ("[trainer]\nprompts_per_step = 5\nupdates_per_step = 2", "does not divide"),
        ("[data]\ndecontaminate = 'a'", "data.decontaminate = 'a' must be a list; write [...]"),
        ("[data]\ndecontaminate = ['a', 3]", "data.decontaminate[1] = 3 must be of type str"),
        ("x =", "not valid TOML"),
    ],
)
def test_bad_config_names_the_key(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message.split(";")[0])) as error:
        load_config(write(tmp_path, text), [])
    assert message in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_config(tmp_path / "none.toml", [])
    with pytest.raises(ValueError, match=r"is a folder; give the configuration \(\.toml\)"):
        load_config(tmp_path, [])


GYM = ["--data.path=reasoning_gym:gcd", "--reward.function=reasoning_gym"]
EIGHT = ["--difficulty.samples_per_prompt=8"]


def test_a_curriculum_and_weights_of_sets_are_two_answers_to_one_question(tmp_path):
    sets = "".join(f'[[data.sets]]\npath = "{name}.jsonl"\nweight = 1\n' for name in "ab")
    with pytest.raises(ValueError, match=r"curriculum\.target and the weights of data\.sets both say"):
        load_config(write(tmp_path, sets), ["--curriculum.target=[0.7, 0.3]"])
    config = load_config(write(tmp_path, sets.replace("weight = 1\n", "")), ["--curriculum.target=[0.7, 0.3]"])
    assert config.curriculum.target == (0.7, 0.3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--algorithm.loss=ppo"], "algorithm.loss = 'ppo' is not one of 'dapo'"),
        (["--trainer.lr=3"], "--trainer.lr is unknown; did you mean 'optimizer.lr'?"),
        (["--trainer.stepz=3"], "--trainer.stepz is unknown; did you mean 'steps'"),
        (["--learning_rate", "1e-6"], "--learning_rate is unknown; here it is optimizer.lr"),
        (["--config", "my.toml"], "--config is unknown; the configuration is the first argument"),
        (["--resume"], "--resume is unknown; starting the same command again resumes the run"),
        (["--trainer.steps=0"], "trainer.steps = 0 is below 1"),
        (["--trainer.steps", "many"], "--trainer.steps = 'many' must be of type int"),
        (["--trainer.steps"], "--trainer.steps has no value"),
        (["--fresh"], "belongs to `polaris train`"),
        (["--trainer=3"], "--trainer is a table"),
        (
            ["--model.lora={ rank = 16 }"],
            "--model.lora is a table; write it as [model.lora] with its fields below, or --model.lora.key=value",
        ),
        (["--seed=1", "--seed.low=2"], "'seed' holds no fields"),
        (["other.toml"], "'other.toml' is no override; write --section.key=value (one CONFIG comes first)"),
        (["trainer.steps=3"], "'trainer.steps' is no override; write --trainer.steps=3"),
        (["--bf16"], "--bf16 is unknown; here it is model.dtype"),
        (["--rollout.top_k=20"], "rollout.top_k would make the sampled distribution differ"),
        (["--curation.shape=mirrored_j"], "[curation] needs pass rates"),
        (
            ["--difficulty.stop_early=true", "--difficulty.samples_per_prompt=4"],
            "difficulty.stop_early leaves out responses after a prompt's first 4",
        ),
        (["--difficulty.stop_early=true", *EIGHT, "--difficulty.column=x"], "without difficulty.column"),
        (["--difficulty.stop_early=true", *EIGHT, "--curation.shape=mirrored_j"], "remove difficulty.stop_early, or them"),
        (["--difficulty.stop_early=true", *EIGHT, "--curation.histogram=[1, 1]"], "remove difficulty.stop_early, or them"),
        (["--curriculum.target=[0.7]"], "curriculum.target = [0.7] must be two pass rates"),
        (["--curriculum.target=[0.7, 1.2]"], "curriculum.target = [0.7, 1.2] must be two pass rates"),
        (["--curriculum.plateau=5"], "set it, such as to [0.7, 0.3]"),
        (["--curriculum.prior=difficulty"], "set it, such as to [0.7, 0.3]"),
        (["--curriculum.width=0.01"], "curriculum.width = 0.01 is below 0.05"),
        (["--reward.process.most=0.5", "--reward.function.math=0.5"], "must be below 0.5, the weight of reward.function.math"),
        (["--reward.process.most=0.5", "--reward.success_above=0.3"], "with reward.success_above that may be more than 0 already"),
        (["--reward.process.most=0.5", *GYM], "with reasoning_gym that may be more than 0 already"),
        (
            [*GYM, "--eval.path=reasoning_gym:gcd", "--eval.options.size=9"],
            "[eval] and [data] have the same problems of reasoning_gym:gcd; give eval.options another seed",
        ),
        (
            [*GYM, "--data.options.examples=3", "--eval.path=reasoning_gym:gcd", "--eval.options.size=9"],
            "[eval] and [data] have the same problems of reasoning_gym:gcd; give eval.options another seed",
        ),
        (
            [*GYM, "--data.options.examples=3", "--eval.path=reasoning_gym:gcd", "--eval.options.seed=9"],
            "give eval.options the same examples, or examples = 0",
        ),
        (["--curriculum.target=[0.7, 0.3]", "--curriculum.width=1e308"], "curriculum.width = 1e+308 is above 10"),
        (["--observe.profile=[3]"], "observe.profile = [3] must be the first and the last step, such as [3, 5]"),
        (["--observe.profile=[5, 3]"], "observe.profile = [5, 3] must be the first and the last step, such as [3, 5]"),
        (["--observe.profile=[0, 3]"], "observe.profile = [0, 3] must be the first and the last step, such as [3, 5]"),
        (["--rollout.temperature=inf"], "rollout.temperature = inf must be finite"),
        (["--seed=18446744073709551616"], "seed = 18446744073709551616 must be below"),
        (["--name=.."], "name = '..' must be a folder name"),
        (["--data.decontaminate=[a]"], "--data.decontaminate = '[a]' must be a list; write [...] around its items, texts in quotes"),
        (["--reward.workers=100000"], "reward.workers = 100000 is above"),
        (["--rollout.max_concurrent=100000000"], "rollout.max_concurrent = 100000000 is above"),
    ],
)
def test_bad_overrides_name_the_field(tmp_path, overrides, message):
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, ""), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_two_sets_of_a_task_with_seeds_of_their_own_are_two_sets(tmp_path):
    other = ["--eval.path=reasoning_gym:gcd", "--eval.options.seed=1"]
    assert load_config(write(tmp_path, ""), [*GYM, *other]).eval.options == {"seed": 1}


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    config = load_config(write(tmp_path, "[[stage]]\nsteps = 1\n"), ["--name=7", "--model.path=1.50", "--stage.0.temperature=0.5"])
    assert (config.name, config.model.path, config.stage[0].temperature) == ("7", "1.50", 0.5)


def test_an_override_that_no_stage_uses_is_refused(tmp_path):
    own = "[[stage]]\nsteps = 3\ntemperature = 0.5\n"
    with pytest.raises(ValueError, match=r"--rollout.temperature has no effect: .* --stage.0.temperature=value"):
        load_config(write(tmp_path, own), ["--rollout.temperature=1.0"])
    with pytest.raises(ValueError, match=r"--trainer.steps has no effect"):
        load_config(write(tmp_path, own), ["--trainer.steps", "7"])
    config = load_config(write(tmp_path, own + "[[stage]]\nsteps = 3\n"), ["--rollout.temperature=0.7", "--rollout.max_response_tokens=9"])
    assert (config.rollout.temperature, config.rollout.max_response_tokens) == (0.7, 9)


def test_help_has_the_fields_of_a_stage():
    assert {"--drop_above", "--eval_temperature", "--optimizer.lr"} <= set(describe_fields().split())


def test_an_override_repairs_what_the_file_says(tmp_path):
    path = write(tmp_path, "[trainer]\nprompts_per_step = 5\nupdates_per_step = 2\n")
    assert load_config(path, ["--trainer.prompts_per_step", "4", "--data.path=", "--name=007"]).name == "007"


def test_dump_and_changes_round_trip():
    config = RunConfig(seed=1)
    assert changed_fields(config, dump_config(config)) == []
    other = dataclasses.replace(config, trainer=TrainerConfig(steps=7))
    assert changed_fields(other, dump_config(config)) == ["trainer.steps: 100 -> 7"]


def test_sections_are_checked_together():
    config = RunConfig()
    config.check_positions(9216)
    with pytest.raises(ValueError, match=r"set rollout.max_response_tokens \(or a stage's\) to 8191 or less"):
        config.check_positions(9215)
    with pytest.raises(ValueError, match=r"; set data\.max_prompt_tokens to 960 or less, or rope\.max_positions to 1088"):
        RunConfig(rollout=RolloutConfig(max_response_tokens=64)).check_positions(1024)
    config.check_ranks(7)
    with pytest.raises(ValueError, match="does not divide the 3 ranks"):
        RunConfig(rollout=RolloutConfig(tensor_parallel=2)).check_ranks(3)
    with pytest.raises(ValueError, match="2 or more"):
        RunConfig(rollout=RolloutConfig(samples_per_prompt=1)).check_ranks(1)
    separate = RunConfig(rollout=RolloutConfig(placement="separate", engine_ranks=2))
    separate.check_ranks(3)
    sharing = RunConfig(rollout=RolloutConfig(placement="separate", engine_ranks=2, tensor_parallel=2))
    sharing.check_ranks(3)
    with pytest.raises(ValueError, match="does not divide the 3 ranks that train into engines"):
        dataclasses.replace(sharing, final=FinalConfig(suite=("x.jsonl",))).check_ranks(5)
    with pytest.raises(ValueError, match=r"engine_ranks = 2 leaves none of 2 ranks to train; start with more"):
        separate.check_ranks(2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--rollout.engine_ranks=0"], r'placement = "separate" needs engines; set rollout\.engine_ranks'),
        (["--rollout.placement=colocated"], r'engine_ranks = 1 needs rollout\.placement = "separate"'),
        (["--rollout.oversample=1.5"], r"rollout\.oversample cuts long responses off.*remove it"),
        (["--rollout.episode=mine:tool"], r"rollout\.episode .*remove one of them"),
        (["--rollout.tensor_parallel=2"], r"engine_ranks = 1 do not divide into engines of rollout\.tensor_parallel = 2 ranks"),
        (["--rollout.max_staleness=-1"], r"max_staleness = -1 is below 0"),
        (["--rollout.placement=elsewhere"], r"placement"),
        (
            ["--algorithm.correction=off"],
            r"max_staleness = 1 trains on tokens of older weights.*max_staleness to 0",
        ),
        (
            ["--algorithm.scarce=generate", "--algorithm.min_informative=0.3"],
            r'scarce = "generate" makes a step wait .*max_staleness to 0',
        ),
    ],
)
def test_what_engines_on_ranks_of_their_own_cannot_do_is_refused(settings, said, tmp_path):
    (path := tmp_path / "run.toml").touch()
    separate = ["--rollout.placement=separate", "--rollout.engine_ranks=1"]
    assert load_config(path, [*separate, "--rollout.max_staleness=0", "--algorithm.correction=off"]).rollout.placement == "separate"
    with pytest.raises(ValueError, match=said):
        load_config(path, [*separate, *settings])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["--rollout.servers=['host:8000']"],
            r"rollout\.servers: 'host:8000' is no address of a server; write one such as 'http://host:8000'",
        ),
        (["--rollout.servers=['http:///v1']"], r"'http:///v1' is no address"),
        (["--rollout.servers=['http://a:1/', 'http://b', 'http://a:1']"], r"names http://a:1 twice"),
        (["--rollout.placement=colocated"], r'rollout\.servers sample while others train.*placement = "separate"'),
        (["--rollout.engine=transformers"], r"rollout\.servers are vLLM's, and rollout\.engine = 'transformers' is not"),
        (["--rollout.engine=mine:Engine"], r"rollout\.engine = 'mine:Engine' is not"),
    ],
)
def test_servers_outside_the_job(settings, said, tmp_path):
    (path := tmp_path / "run.toml").write_text('[rollout]\nplacement = "separate"\nservers = ["http://a:1", "https://b/under"]\n')
    config = load_config(path, [])
    assert (config.rollout.servers, config.rollout.engine_ranks) == (("http://a:1", "https://b/under"), 0)
    config.check_ranks(1)
    with pytest.raises(ValueError, match=said):
        load_config(path, settings)


def test_bounds_name_the_remedy():
    with pytest.raises(ValueError, match=r"trainer.steps = 0 is below 1; set it to 1 or more"):
        TrainerConfig(steps=0)
    with pytest.raises(ValueError, match="dual_clip"):
        AlgorithmConfig(dual_clip=0.5)


def test_every_field_is_read_somewhere():
    """A field nobody reads would be a lie to the user."""
    read = set()
    for path in (ROOT / "polaris").rglob("*.py"):
        if path.parent.name != "config" or path.name in ("load.py", "schema.py"):
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    sections = [kind for kind in vars(schema).values() if dataclasses.is_dataclass(kind)]
    # Sampling restrictions exist to be refused: schema.py itself reads them.
    refused = {"top_p", "top_k", "min_p", "repetition_penalty"}
    unread = {f"{section.__name__}.{f.name}" for section in sections for f in dataclasses.fields(section) if f.name not in read | refused}
    assert not unread


def test_every_shipped_config_loads():
    paths = sorted((ROOT / "configs").glob("*.toml"))
    assert paths
    for path in paths:
        load_job(SftConfig if path.stem.endswith("-sft") else RunConfig, path)


@pytest.mark.parametrize("module", ["polaris.cli", "polaris.config.load", "polaris.train"])
def test_imports_stay_light(module):
    heavy = {"torch", "vllm", "transformers", "triton"}
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_of_other_trainers_lead_to_fields_that_exist():
    config = RunConfig()
    for field in " ".join(ELSEWHERE.values()).replace(" and ", " ").replace(",", "").split():
        operator.attrgetter(field)(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 1e-6", "my.toml: lr is unknown; did you mean 'optimizer.lr'?"),
        ("[rollout]\nwarmup_step = 1", "did you mean 'optimizer.warmup_steps'?"),
        ("[optimiser]\nlr = 1", "optimiser is unknown; did you mean 'optimizer'?"),
        ("[optimizer]\nlerning_rate = 1", "here learning_rate is optimizer.lr"),
        (
            "[actor_rollout_ref.actor.optim]\nlr = 1",
            "its actor.optim.lr: did you mean 'optimizer.lr'?",
        ),
        ("[actor_rollout_ref.rollout]\nn = 8", "its rollout.n: here it is rollout.samples_per_prompt"),
        ("num-generations = 8", "here it is rollout.samples_per_prompt"),
        ("[model]\nlora_rank = 8", "here it is model.lora.rank"),
        ("[model.lora]\nuse_dora = true", "Polaris has no adapters other than LoRA; docs/limits.md"),
    ],
)
def test_an_unknown_key_is_looked_for_in_all_sections(text, message, tmp_path):
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(tmp_path / "my.toml")


def test_what_is_absent_is_on_its_page():
    page = (ROOT / "docs" / "limits.md").read_text()
    assert [what for what in set(ABSENT.values()) if f"| {what}".lower() not in page.lower()] == []
