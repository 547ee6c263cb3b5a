import json
import re
from html.parser import HTMLParser

import pytest
from hostile import HOSTILE
from PIL import Image

from polaris.observe.assets import LIGHT, SCRIPT
from polaris.observe.charts import Chart, areas, lines, running_mean, svg
from polaris.observe.metrics import MetricsFile, read_records
from polaris.observe.phrases import summary_line
from polaris.observe.report import summarize, summary, write_report
from polaris.observe.run_files import read_run
from polaris.observe.sections.training import curves as shown_charts


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.setdefault(self.tags[-1][0] if self.tags else "", []).append(data)


def make_run(folder, texts=("plain",)):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"name": texts[0], "model": {"path": texts[-1]}, "data": {"path": texts[0]}}))
    metrics = MetricsFile(folder / "metrics.jsonl")
    metrics.append({"step": 0, "eval/accuracy": 0.2})
    for step in range(1, 61):
        evaluation = {"eval/accuracy": 0.2 + step / 200} if step % 20 == 0 else {}
        norm = float("nan") if step == 30 else 0.1
        metrics.append({"step": step, "reward/mean": step / 60, "optimizer/grad_norm": norm, "seconds/step": 60.0, **evaluation})
    names = ("prompt", "response", "ground_truth", "verdict", "reason", "finish_reason", "answer", "reward", "step", "length")
    rows = [json.dumps(dict.fromkeys(names, text)) for text in texts]
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "step-000001.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def test_nothing_from_a_rollout_becomes_markup(tmp_path):
    text = write_report(make_run(tmp_path / "run", HOSTILE)).read_text()
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == tags.count("style") == 1
    assert "".join(page.text["script"]).startswith(SCRIPT)
    assert not {"img", "base", "iframe", "textarea", "link", "form"} & set(tags)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert all(attributes.get("xlink:href", "#").startswith("#") for _, attributes in page.tags)
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert sum("http-equiv" in attributes for _, attributes in page.tags) == 1


def test_alarms_are_listed_with_their_steps(tmp_path):
    folder = make_run(tmp_path / "run")
    assert "Alarms" not in write_report(folder).read_text()
    metrics = MetricsFile(folder / "metrics.jsonl")
    for step in range(61, 101):
        groups = {f"groups/{kind}": count for kind, count in (("drawn", 8), ("informative", 4), ("all_right", 2), ("all_wrong", 2))}
        metrics.append({"step": step, **groups, "policy/entropy": 0.5 if step < 90 else 0.01})
    cells = Page(write_report(folder).read_text()).text["td"]
    place = next(place for place, cell in enumerate(cells) if cell.startswith("entropy has collapsed to 0.01"))
    assert cells[place - 1] == "92"
    assert "optimizer.lr" in cells[place + 1]


def test_summary(tmp_path):
    assert summary(make_run(tmp_path / "run")) == {
        "base_accuracy": 0.2, "final_accuracy": 0.5, "best_accuracy": 0.5, "final_step": 60, "best_step": 60, "steps": 60, "minutes": 60.0,
        "sampled": "",
    }  # fmt: skip


def test_accuracies_on_held_out_prompts_that_were_changed_are_not_compared(tmp_path):
    run = make_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    changes = [(10, "optimizer.lr: 1 -> 2"), (20, "eval.path: 16 -> 12 held-out prompts, with other content")]
    history = [{"step": step, "date": "", "changes": [change], "free": []} for step, change in changes]
    (run / "config.json").write_text(json.dumps(config | {"history": history}))
    found = summary(run)
    assert [found[key] for key in ("base_accuracy", "final_accuracy", "best_step", "steps", "minutes")] == [None, 0.5, 60, 60, 60.0]


def test_the_picture_shows_something(tmp_path):
    run = make_run(tmp_path / "run", ("a $broken$ {name} \\frac",))
    write_report(run)
    with Image.open(run / "report.png") as image:
        image.verify()
    with Image.open(run / "report.png") as image:
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 100


def held_out(step, accuracy, problems=100, samples=4, **facts):
    return {"step": step, "eval/accuracy": accuracy, "eval/problems": problems, "eval/samples_per_prompt": samples, **facts}


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ([{"step": 1}], "1 step in 0.0s; no held-out evaluation"),
        ([held_out(0, 0.05), {"step": 3}], "3 steps in 0.0s; base accuracy 5.0%"),
        ([{"step": 1}, held_out(3, 0.25)], "3 steps in 0.0s; final accuracy 25.0%"),
        ([held_out(0, 0.05), held_out(3, 0.25)], "3 steps in 0.0s; accuracy 5.0% -> 25.0%"),
        ([held_out(0, 0.05), held_out(3, 0.25), {"step": 5}], "5 steps in 0.0s; accuracy 5.0% -> 25.0% at step 3"),
        ([held_out(2, 0.05), {"step": 3}], "3 steps in 0.0s; final accuracy 5.0% at step 2"),
        ([held_out(0, 0.05), held_out(3, 0.05)], "3 steps in 0.0s; accuracy 5.0% -> 5.0%"),
        (
            [held_out(0, 0.05), held_out(3, 0.25, samples=1)],
            "3 steps in 0.0s; accuracy 5.0% -> 25.0% (not like for like: samples per problem 1 to 4)",
        ),
        (
            [held_out(0, 0.05), held_out(3, 0.25, problems=30, **{"eval/temperature": 0.6})],
            "3 steps in 0.0s; accuracy 5.0% -> 25.0% (not like for like: problems 30 to 100)",
        ),
    ],
)
def test_the_outcome_in_one_line_says_what_is_known(records, line):
    assert summary_line(summarize(records)) == line


@pytest.mark.parametrize(
    "records", [None, "", '{"step": 0, "eval/acc', '{"step": 1, "reward/mean": null}\n', '{"step": 0, "eval/accuracy": 0.5}\n']
)
def test_a_run_with_parts_missing_has_a_report_that_says_so(tmp_path, records):
    (tmp_path / "config.json").write_text("{")
    if records is not None:
        (tmp_path / "metrics.jsonl").write_text(records)
    text = write_report(tmp_path).read_text()
    assert "no readable config.json" in text
    assert "No rollouts were kept" in text
    assert ("No step has been recorded" in text) == (
        records in (None, "") or (records.startswith('{"step": 0, "eval/acc') and records[-1] != "\n")
    )
    assert "training reward" in text
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_no_folder_is_an_error_with_a_remedy(tmp_path):
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ValueError, match=r"not the folder of a training run.*metrics\.jsonl"):
            write_report(folder)
    assert list(tmp_path.iterdir()) == []


def test_curves_break_where_a_value_was_not_finite():
    text = svg(lines([Chart(title="x", curves={"x": [(1, 1.0), (2, 2.0), (3, None), (4, 1.0), (5, 2.0)]})]))
    (path,) = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke="var\(--c0\)"', text)
    assert (path.count("M"), path.count("L")) == (2, 2)
    assert text.count("<use") == 4
    assert "nan" not in text


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-9, 7.5e8])
def test_one_constant_point_can_be_drawn(value):
    chart = Chart(title="x", curves={"x": [(4, value)]})
    for text in (svg(lines([chart]), chart), svg(areas(chart), chart)):
        assert "nan" not in text
        assert "inf" not in text
        assert ">4</text>" in text


@pytest.mark.parametrize(("values", "shown"), [((7.5e-8, -7e-8), (-1, 1)), ((0.0, 0.0), (0, 1)), ((0.0, 2e-4), None)])
def test_rounding_is_not_magnified(values, shown):
    low, high = lines([Chart(title="x", curves={"x": list(enumerate(values))})]).axes[0].get_ylim()
    assert (low, high) == shown if shown else -1e-4 < low <= 0 < 2e-4 <= high < 3e-4


OFF = {"substitution": False, "rescue": 0}


@pytest.mark.parametrize(
    ("algorithm", "substituted", "curves"),
    [
        (OFF, 0, None),
        (OFF, 1, {"substituted"}),
        (OFF | {"rescue": 2}, 0, {"rescued"}),
        ({"substitution": True, "rescue": 2}, 0, {"substituted", "rescued"}),
    ],
)
def test_zeros_of_what_is_off_are_not_drawn(tmp_path, algorithm, substituted, curves):
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": algorithm}))
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        metrics.append({"step": step, "groups/substituted": substituted, "rescue/groups": 0})
    found = {chart.title: chart.curves.keys() for chart in shown_charts(read_run(tmp_path)) if chart.curves}
    assert found == ({"Substituted and rescued groups": curves} if curves else {})


def test_a_fine_tuning_has_its_losses_and_nothing_of_rollouts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"path": "x", "train_on": ["assistant"]}}))
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(3):
        metrics.append({"step": step, "eval/loss": 2.0 - step / 4} | ({"sft/loss": 1.75 - step / 4} if step else {}))
    text = write_report(tmp_path).read_text()
    assert "<b>2.0000</b><span>held-out loss before</span>" in text
    assert "<b>1.5000</b><span>held-out loss after</span>" in text
    assert "Rollouts" not in text
    assert re.findall(r"Not in this run: .*?<", text) == ["Not in this run: gradient norm, tokens per second.<"]
    (tmp_path / "metrics.jsonl").write_text("")
    for step in (1, 2):
        metrics.append({"step": step, "sft/loss": 1.75 - step / 4})
    text = write_report(tmp_path).read_text()
    assert "<b>1.5000</b><span>loss of the first step</span>" in text
    assert "<b>1.2500</b><span>loss of the last step</span>" in text


def test_a_run_of_rl_misses_no_loss_of_examples_and_spells_kl_as_the_field_does(tmp_path):
    (absent,) = re.findall(r"Not in this run: .*?<", write_report(make_run(tmp_path / "run")).read_text())
    assert "loss" not in absent
    assert "engine to trainer KL (nats per token)" in absent


def test_facts_of_a_rollout_explain_themselves(tmp_path):
    run = make_run(tmp_path / "run")
    right = {"step": 1, "verdict": "correct", "reward": 1.0, "length": 9, "version": 2, "reason": "same text", "process": None}
    rows = [
        right,
        right | {"verdict": "wrong", "reward": 0.5, "process": 0.3, "reason": ""},
        right | {"verdict": "no_answer", "reward": 0.0},
    ]
    (run / "rollouts" / "step-000001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cards = re.findall(r'<span class="verdict">(.*?)</span><span class="dim">(.*?)</span>', write_report(run).read_text())
    assert cards == [
        ("correct", "step 1, reward 1, 9 tokens, weights after 2 updates, grader: same text"),
        ("wrong", "step 1, reward 0.5, 0.3 of it process reward, 9 tokens, weights after 2 updates"),
        ("no answer", "step 1, reward 0, 9 tokens, weights after 2 updates, grader: same text"),
    ]


def test_running_mean_looks_back_only():
    assert running_mean([(1, 1.0), (2, None), (3, 3.0), (4, 8.0)], 2) == [(1, 1.0), (3, 2.0), (4, 5.5)]


@pytest.mark.parametrize("percent", [False, True])
def test_areas_stack_and_a_step_that_is_missing_counts_as_0(percent):
    chart = Chart(title="x", curves={"a": [(1, 1.0), (2, 2.0)], "b": [(2, 3.0), (3, None)]}, percent=percent)
    first, second = ([tuple(point) for path in layer.get_paths() for point in path.vertices] for layer in areas(chart).axes[0].collections)
    assert {(1, 0), (1, 1), (2, 2), (3, 0)} <= set(first)
    assert {(1, 1), (2, 2), (2, 5), (3, 0)} <= set(second)


def test_what_is_drawn_and_what_is_said_is_in_the_metrics(tmp_path):
    run = make_run(tmp_path / "run")
    records = read_records(run / "metrics.jsonl")
    text = write_report(run).read_text()
    charts = [json.loads(dict(attributes)["data-chart"]) for _, attributes in Page(text).tags if "data-chart" in attributes]
    said = {name: points for chart in charts for name, points in chart["curves"]}
    for name, key in {"avg@k": "eval/accuracy", "mean": "reward/mean", "before clipping": "optimizer/grad_norm"}.items():
        assert said[name] == [[record["step"], record[key]] for record in records if key in record]
    assert said["before clipping"][29] == [30, None]
    figure = lines([Chart(title="x", curves={name: said[name] for name in ("avg@k", "mean")})])
    few, faint, mean = figure.axes[0].lines
    assert [list(point) for point in few.get_xydata()] == said["avg@k"]
    assert [list(point) for point in faint.get_xydata()] == said["mean"]
    assert [list(point) for point in mean.get_xydata()] == [list(point) for point in running_mean(said["mean"], 3)]
    assert (faint.get_alpha(), mean.get_label(), mean.get_color()) == (0.3, "mean", faint.get_color())


def test_a_chart_has_a_name_for_a_screen_reader_and_names_on_its_axes(tmp_path):
    text = write_report(make_run(tmp_path / "run")).read_text()
    labels = [attributes["aria-label"] for tag, attributes in Page(text).tags if tag == "svg"]
    assert labels == ["Held-out accuracy: avg@k", "Training reward: mean", "Gradient norm: before clipping"]
    for title in ("Held-out accuracy", "Training reward", "Gradient norm"):
        assert f">{title}</text>" in text
    assert text.count(">step</text>") == 3


def test_the_report_repeats_byte_for_byte_and_shared_ids_stand_for_the_same(tmp_path):
    run = make_run(tmp_path / "run")
    first, again = (write_report(run).read_bytes() for _ in range(2))
    assert first == again
    defined = re.findall(r'<(?:path|clipPath) id="(\w+)"(.*?)(?:/>|</clipPath>)', first.decode())
    assert len(set(defined)) == len({name for name, _ in defined}) > 1
    used = set(re.findall(r'(?:url\(|xlink:href=")#(\w+)', first.decode()))
    assert used == {name for name, _ in defined}


def test_colours_are_those_of_the_page(tmp_path):
    assert len(set(LIGHT.values())) == len(LIGHT)
    _, pictures = write_report(make_run(tmp_path / "run")).read_text().split("<main>")
    assert not re.findall(r'="#\w{6}"', pictures)
    assert {"c0", "rule", "dim", "ink"} <= set(re.findall(r"var\(--(\w+)\)", pictures))
