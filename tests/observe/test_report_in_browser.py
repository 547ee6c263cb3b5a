"""The page in headless Chromium, with hostile rollouts."""

import pytest
from hostile import HOSTILE

pytest.importorskip("websockets", reason="the DevTools protocol needs the websockets package")
from browser import Browser, installed

from polaris.observe.report import write_report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(installed() is None, reason="chromium is not installed (apt-get install chromium)")]

VISIBLE = "[...document.querySelectorAll('.rollout')].filter(card => card.checkVisibility())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def path(recipe_folder):
    return write_report(recipe_folder)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1360])
def test_it_renders_without_a_complaint_or_a_request_or_a_horizontal_scrollbar(browser, path, width, dark):
    browser.open(path, width, dark)
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]
    assert browser.evaluate("document.title") == "recipe - Polaris"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(svg => svg.getBoundingClientRect().height > 100)")
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 22, 20)") == dark
    curve = browser.evaluate("getComputedStyle(document.querySelector('svg[data-chart] path[stroke*=c0]')).stroke")
    assert curve == ("rgb(77, 148, 234)" if dark else "rgb(42, 120, 214)")


def test_hostile_text_is_read_as_it_was_written(browser, path):
    browser.open(path)
    shown = browser.evaluate(f"{VISIBLE}.map(card => card.querySelector('pre').textContent)")
    for text in HOSTILE[:5]:
        assert f"Question: {text}" in shown
    assert not any("\u202e" in text for text in shown)
    assert browser.evaluate("document.querySelectorAll('main script, main img, main iframe, main meta, main a, main base').length") == 0
    attributes = browser.evaluate("[...new Set([...document.querySelectorAll('main *')].flatMap(one => one.getAttributeNames()))]")
    assert not [name for name in attributes if name.startswith("on") or name in ("style", "href", "src", "srcdoc", "autofocus")]


def test_script_that_got_into_the_page_all_the_same_would_be_refused(browser, path, tmp_path):
    broken = tmp_path / "broken.html"
    text = path.read_text()
    broken.write_text(
        text.replace("<main>", "<main><script>document.title = 'pwned'</script><img src=x onerror=\"document.title='pwned'\">")
    )
    browser.open(broken)
    assert browser.evaluate("document.title") == "recipe - Polaris"
    assert any("Content Security Policy" in str(event) for event in browser.complaints())


def test_filters_by_verdict_and_stage_work_with_the_keyboard(browser, path):
    browser.open(path)
    everything = browser.evaluate(f"{VISIBLE}.length")
    assert everything == 6 * 8

    def press(key, value):
        browser.evaluate(f"document.querySelector('[data-key={key}] button[value=\"{value}\"]').focus()")
        browser.press("Enter", 13, "\r")
        return browser.evaluate(f"{VISIBLE}.map(card => [card.dataset.verdict, card.dataset.stage])")

    wrong = press("verdict", "wrong")
    assert 0 < len(wrong) < everything
    assert {verdict for verdict, _ in wrong} == {"wrong"}
    both = press("stage", "2")
    assert 0 < len(both) < len(wrong)
    assert {tuple(pair) for pair in both} == {("wrong", "2")}
    assert browser.evaluate("document.querySelector('.shown').textContent") == f"{len(both)} of {everything} rollouts"
    assert browser.evaluate("document.querySelectorAll('[aria-pressed=true]').length") == 2
    assert {stage for _, stage in press("verdict", "all")} == {"2"}
    assert len(press("stage", "all")) == everything


def test_thinking_is_folded_and_opens_with_the_keyboard(browser, path):
    browser.open(path)
    hidden = "document.querySelector('.rollout details pre').checkVisibility()"
    assert not browser.evaluate(hidden)
    browser.evaluate("document.querySelector('.rollout summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(hidden)
    assert browser.evaluate("getComputedStyle(document.querySelector('.rollout pre i')).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_a_chart_says_its_values(browser, path):
    browser.open(path)
    said = "document.querySelector('figure output').textContent"
    browser.evaluate("document.querySelector('svg[data-chart]').focus({focusVisible: true})")
    browser.press("ArrowLeft", 37)
    assert browser.evaluate(said).startswith("step 30: avg@k ")
    browser.press("ArrowRight", 39)
    assert browser.evaluate(said).startswith("step 40: avg@k ")
    box = browser.evaluate("(box => [box.x, box.y])(document.querySelector('svg[data-chart] use').getBoundingClientRect())")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    assert browser.evaluate(said).startswith("step 0: avg@k ")
    cursor = browser.evaluate("document.querySelector('svg[data-chart] .cursor').getBoundingClientRect().x")
    assert cursor == pytest.approx(box[0] + 3, abs=2), "over the dot of step 0"
