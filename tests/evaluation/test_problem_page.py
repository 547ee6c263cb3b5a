"""result.html: every problem leads to responses, nothing that a model wrote is markup, and the page stays small."""

from html.parser import HTMLParser

import pytest

from polaris.evaluation import page as pages
from polaris.evaluation.page import page
from polaris.evaluation.samples import Key, Sample, SampleFile
from polaris.evaluation.scoring import Scored
from polaris.evaluation.settings import EvalSettings
from polaris.evaluation.suites import load_suites
from polaris.types import Verdict

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202e"'


class Page(HTMLParser):
    """The tags of a page, its links and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.anchors, self.text = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [given["href"]] if "href" in given else []
        self.anchors |= {given["id"]} if "id" in given else set()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def build(tmp_path):
    """A page of three problems with six samples each by default, the first two right on `easy`; `response` is what a model wrote."""

    def build(response="fine", samples=6, known=(), against=()):
        rows = "".join(f'{{"id": "{name}", "problem": "{name}, or <b>what</b>?", "answer": "7"}}\n' for name in ("easy", "hard", "a & 'b'"))
        (tmp_path / "set.jsonl").write_text(rows, encoding="utf-8")
        suites = load_suites(EvalSettings(suite=(str(tmp_path / "set.jsonl"),), samples_per_prompt=6))
        scored, file = [], SampleFile(tmp_path / "rope-1", 0)
        for problem in suites[0].problems:
            for number in range(samples):
                right = problem.id == "easy" and number < 2
                key = Key("set", problem.id, number)
                file.append(Sample(key=key, seed=0, response=response, tokens=10, finish_reason="stop"), "7")
                verdict = (
                    Verdict("correct", "", "7", reward=1.0)
                    if right
                    else Verdict("wrong", "", HOSTILE)
                    if number
                    else Verdict("no_answer", "")
                )
                scored.append(Scored(rope_factor=1.0, key=key, tokens=10, finish_reason="stop", strict=verdict, recipe=verdict))
        file.close()
        mean = {"mean": 1 / 9, "low": 0.0, "high": 0.5}
        numbers = {"samples": samples, "correct": {"easy": 2, "hard": 0, "a & 'b'": 0}, "avg": mean, "no_answer": 0.0}
        numbers |= {"problems": 3, "overlap": {"problems": list(known), "within": None, "without": {"mean": 0.5, "low": 0.1, "high": 0.9}}}
        result = {"overlap": {"against": list(against), "unread": []}, "results": {"1": {"set": numbers}}}
        return page("name <i>", tmp_path, suites, scored, result)

    return build


def test_every_problem_is_in_the_table_hardest_first_and_leads_to_its_responses(build):
    found = Page(build())
    assert found.links == ["#1/set/hard", "#1/set/a & 'b'", "#1/set/easy"]
    assert {link.removeprefix("#") for link in found.links} <= found.anchors
    assert found.tags.count("article") == 3 * 4
    text = "".join(found.text)
    assert "easy: 2 of 6 solved, 4 responses" in text
    assert "x5, no answer x1" in text
    assert found.text.count("correct") == 2, "right ones and wrong ones in turn"


def test_problems_that_are_also_training_data_stand_beside_the_score_and_are_marked(build):
    text = "".join(Page(build(known=["hard"], against=["train.jsonl"])).text)
    assert "without an answer; 1 of 3 problems also in the training data, avg@6 without them 50.0% [10.0%, 90.0%]" in text
    assert text.count("(also in the training data)") == 1
    assert "0 of 3 problems also in the training data" in "".join(Page(build(against=["train.jsonl"])).text)
    assert "training data" not in "".join(Page(build()).text)


def test_one_response_without_an_answer_is_said_in_words(build):
    found = Page(build(samples=1))
    assert "hard: 0 of 1 solved, 1 response" in found.text
    assert found.text.count("no answer") == 2
    assert not any("no_answer" in text for text in found.text)


def test_what_a_model_wrote_is_text(build):
    found = Page(build(response=HOSTILE))
    assert found.tags.count("script") == 1
    assert not {"img", "b", "i"} & set(found.tags)
    assert "[U+202E]" in "".join(found.text)


def test_long_responses_lose_their_middle(build, monkeypatch):
    whole = build(response="x" * 1_000_000)
    assert len(whole) < 12 * (pages._LONGEST + 500) + 50_000
    assert "994,000 characters left out" in whole
    monkeypatch.setattr(pages, "_MOST", 12 * 100)
    assert len(build(response="x" * 1_000_000)) < len(whole) - 12 * 5_000
