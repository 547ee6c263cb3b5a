"""The parts of the page that show what the recipe has left under `stages/`."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image, ImageColor
from recipe_run import recipe_run

from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig
from polaris.observe.assets import LIGHT
from polaris.observe.charts import lines, png
from polaris.observe.report import write_report
from polaris.observe.run_files import read_run
from polaris.observe.sections.training import most_telling


class Tables(HTMLParser):
    """Rows of cells of every table, by the heading of its section."""

    def __init__(self, text):
        super().__init__()
        self.found, self._tag, self._title = {}, "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        if tag == "h2":
            self._title = ""
        if tag == "tr":
            self.found.setdefault(self._title, []).append([])
        if tag in ("td", "th"):
            self.found[self._title][-1].append("")

    def handle_endtag(self, tag):
        self._tag = "td" if tag in ("b", "span") else ""

    def handle_data(self, data):
        if self._tag == "h2":
            self._title += data
        elif self._title in self.found and self.found[self._title][-1] and self._tag in ("td", "th", "b", "span"):
            self.found[self._title][-1][-1] += data


@pytest.fixture(scope="module")
def page(recipe_folder):
    return write_report(recipe_folder).read_text()


@pytest.fixture(scope="module")
def tables(page):
    return Tables(page).found


def test_every_phase_has_its_section(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Final evaluation", "Stages", "Curves", "Difficulty", "Sampling temperature", "Response lengths", "Rollouts", "Configuration",
    ]  # fmt: skip


def test_stages_say_what_they_did(tables):
    head, first, second, third = tables["Stages"]
    rows = [dict(zip(head, row, strict=True)) for row in (first, second, third)]
    assert [row["steps"] for row in rows] == ["1 to 20", "21 to 32", "33 to 40"]
    assert [row["limit"] for row in rows] == ["40,960", "53,248", "65,536"]
    assert [row["temperature"] for row in rows] == ["1.2 (probe)", "1.3 (retune)", "1.4 to 1.45"]
    assert [row["left"] for row in rows] == ["900", "899", "898"]
    assert rows[0]["prompts dropped"] == "2 (above 0.9)"
    assert rows[1]["held-out"].startswith(rows[0]["held-out"].split(" to ")[1])


def test_every_curve_has_the_stages(page):
    drawn = re.findall(r"<svg[^>]*data-chart.*?</svg>", page)
    assert len(drawn) > 8
    for curve in drawn:
        assert re.findall(r">(stage \d)<", curve) == ["stage 1", "stage 2", "stage 3"]


def test_the_final_evaluation_has_its_intervals(tables):
    head, first, *_ = tables["Final evaluation"]
    row = dict(zip(head, first, strict=True))
    assert (row["set"], row["YaRN"], row["avg@n"]) == ("aime24", "1", "81.0% [73.0%, 89.0%]")
    assert (row["avg@n (recipe grader)"], row["n"], row["mean tokens"]) == ("80.0% [72.0%, 88.0%]", "8", "18,234")


def test_problems_that_are_also_training_data_stand_beside_the_score(tmp_path, tables):
    folder = recipe_run(tmp_path / "run", RunConfig(stage=(StageConfig(steps=1),)), texts=("x",))
    (place,) = folder.glob("stages/evaluation/*/result.json")
    result = json.loads(place.read_text())
    for sets in result["results"].values():
        for numbers in sets.values():
            numbers["overlap"] = {"problems": [], "within": None, "without": numbers["avg"]}
        sets["aime25"]["overlap"] |= {"problems": ["p1", "p2"], "without": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    place.write_text(json.dumps(result | {"overlap": {"against": ["train<.jsonl"], "unread": []}}))
    page = write_report(folder).read_text()
    head, first, second, *_ = Tables(page).found["Final evaluation"]
    assert head[-2:] == ["also in the training data", "avg@n without them"]
    assert first[-2:] == ["0 of 30", "81.0% [73.0%, 89.0%]"]
    assert second[-2:] == ["2 of 30", "50.0% [40.0%, 60.0%]"]
    assert "looked through: train&lt;.jsonl." in page
    assert tables["Final evaluation"][0][-1] == "n", "nothing where nothing was looked through"


def test_two_accuracies_of_one_model_say_why_they_differ(page):
    """The held-out evaluation of the last step, and the evaluation of its export."""
    words = " ".join(page.split("<h2>Final evaluation</h2>")[1].split("</section>")[0].split())
    assert re.search(r"held-out accuracy of step 40, \d+\.\d%, is a measurement of its own: other samples with other seeds", words)
    assert "(4 samples per problem" in words
    assert "Each probe draws samples of its own" in page.split("<h2>Sampling temperature</h2>")[1]


def test_the_picture_shows_the_stages_where_the_page_does(recipe_folder):
    run = read_run(recipe_folder)
    ground = ImageColor.getrgb(LIGHT["band"])

    def columns(stages):
        """Share of the picture's columns that are on a stage's darker ground, half way up."""
        image = Image.open(io.BytesIO(png(lines(most_telling(run, 3), stages)))).convert("RGB")
        return sum(image.getpixel((x, y)) == ground for x in range(image.width) for y in (image.height // 2,)) / image.width

    assert [chart.title for chart in most_telling(run, 3)] == ["Held-out accuracy", "Training reward", "Response length (tokens)"]
    assert [(stage.first, stage.last) for stage in run.spans] == [(0, 20), (20, 32), (32, 40)]
    assert 0.18 < columns(run.spans) < 0.3, "12 of 40 steps, less the space between the panels"
    assert columns(run.spans[:1]) == columns([]) == 0


def test_difficulty_before_and_after(page):
    section = page.split("<h2>Difficulty</h2>")[1].split("</section>")[0]
    assert "measured: 1,630" in section
    assert "left after curation: 1,030" in section
    assert "Dropped: 600 easy" in section
    bars = re.findall(r'<path d="([^"]*)" clip-path[^>]*fill="var\(--c0\)"', section)
    corners = [[float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", bar)] for bar in bars]
    heights = [max(ys) - min(ys) for ys in corners]
    sizes = [300, 120, 90, 80, 80, 90, 110, 160, 0]
    assert heights == pytest.approx([size / 300 * heights[0] for size in sizes], abs=0.1)


def test_temperatures_with_their_zones(page, tables):
    rows = tables["Sampling temperature"]
    assert rows[1][0] == "0.2"
    assert rows[8][-1] == "performance collapse"
    section = page.split("<h2>Sampling temperature</h2>")[1].split("</section>")[0]
    first, second, third = section.split("<h3>")[1:]
    zones = [len(re.findall(r'clip-path="[^"]*" fill="var\(--zone\d', stage)) for stage in (first, second, third)]
    assert zones == [6, 0, 0], "three in each of two panels"
    assert [stage.count("<svg") for stage in (first, second, third)] == [1, 1, 1]
    assert first.count("performance collapse</text>") == 1
    assert second.count("to be restored</text>") == 1
    assert "1.2 was found going up from 1, to restore the diversity of 0.600 with which the stage before began: responses" in second
    assert "within 3% of the best accuracy" in first
    assert "Nothing was drawn at 1.8: at 1.6 accuracy has collapsed already." in first
    assert "performance collapse: more than 30% of the best accuracy is lost" in first
    assert "(0.740): it went up once, between 1.4 and 1.45, and ended at 1.45" in third
    assert third.count("to hold</text>") == 1


def test_lengths_hold_every_response_once(recipe_folder, tables):
    records = [json.loads(line) for line in (recipe_folder / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["stage"] == 0 and "response/limit" in record]
    rows = tables["Response lengths"][1:9]
    assert [row[0] for row in rows][::7] == ["0 to 5,120", "35,840 to 40,960"]
    counted = [int(row[1].replace(",", "")) for row in rows]
    assert sum(counted) == 1024 * len(steps)
    cut = [0.0 if row[4] == "-" else float(row[4].rstrip("%")) / 100 for row in rows]
    assert sum(size * share for size, share in zip(counted, cut, strict=True)) == pytest.approx(
        1024 * sum(record["response/clip_ratio"] for record in steps), abs=counted[-1] * 1e-3
    )


@pytest.mark.parametrize(
    "missing", ["difficulty.json", "curation.json", "temperature-1.json", "stage-2.json", "evaluation/step-000010/result.json"]
)
def test_a_phase_that_has_left_nothing_is_passed_over(tmp_path, missing):
    folder = recipe_run(tmp_path / "run", RunConfig(stage=(StageConfig(steps=2), StageConfig(steps=1))), texts=("x",))
    whole, damaged = read_run(folder), folder / "stages" / missing
    damaged.write_text("{")
    without = read_run(folder)
    damaged.unlink()
    assert without == read_run(folder) != whole
    assert "<h2>Curves</h2>" in write_report(folder).read_text()


@pytest.mark.slow
def test_a_long_run_with_long_rollouts_has_a_page_of_bearable_size(tmp_path):
    config = RunConfig(stage=(StageConfig(steps=400), StageConfig(steps=200), StageConfig(steps=100)))
    folder = recipe_run(tmp_path / "run", config, texts=())
    rollouts = (
        recipe_run(tmp_path / "long", RunConfig(stage=(StageConfig(steps=6),)), texts="abcdefgh", response_tokens=98_304) / "rollouts"
    )
    rollouts.rename(folder / "rollouts")
    text = write_report(folder).read_text()
    assert text.count("<article") == 48
    assert text.count("characters left out") == 48
    assert len(text) < 20e6
