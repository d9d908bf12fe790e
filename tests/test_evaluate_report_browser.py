"""The page of evaluations in Chromium: what its filters find, and that no text of a model acts."""

import shutil
from collections import Counter
from contextlib import contextmanager

import pytest

from curate.evaluate.report import write_report
from tests.evaluations import write_evaluation

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright drives a browser")
expect = playwright.expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

EVIL = "<img src=x onerror=alert(1)></script><script>document.title='gone'</script><!--"
UNSEEN = "nul\x00 bell\x07\x07 turned\u202eback \U0001f600 \u05d0"
LONG = "x" * 1_000_000

TEXTS = [
    ["a first</think>So \\boxed{1}. " + EVIL, EVIL, UNSEEN + "</think>nothing", "a line"],
    ["needle</think>It is \\boxed{2}.", "no</think>\\boxed{-1}", "b</think>2", LONG + "</think>2"],
]


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The page of two models on one task, hostile texts among it, and another task of the first."""
    folder = tmp_path_factory.mktemp("page")
    first = write_evaluation(
        folder / "a",
        "math",
        ["ctnt", "cwnn"],
        lenient=[["correct", "truncated", "no_answer", "truncated"], ["correct", "wrong"] * 2],
        texts=TEXTS,
        ids=["first", EVIL],
        problems=["One?", EVIL],
        model="org/one" + UNSEEN,
        title="Mathematics",
    )
    write_evaluation(first, "choice", ["cw"] * 200, model="org/one", title="Choices")
    second = write_evaluation(folder / "b", "math", ["wwww", "cccc"], model="org/two", tokens=None)
    write_report([first, second], folder / "page.html", completions=1000, characters=2_000_000)
    return folder / "page.html"


@contextmanager
def opened(browser, place, fragment="", **options):
    """The page at an address; in the end nothing may have been said, asked for or run."""
    context = browser.new_context(**options)
    view = context.new_page()
    said, asked = [], []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("dialog", lambda dialog: said.append(dialog.message))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(place.as_uri() + fragment)
    view.wait_for_selector("#reader:not([hidden])")
    try:
        yield view
        assert said == []
        assert {url.partition("#")[0] for url in asked} == {place.as_uri()}
        assert view.title().startswith("Evaluation: ")
    finally:
        context.close()


def listed(view):
    """The statuses of the list, as it is."""
    return Counter(view.locator("#list .status").all_inner_texts())


def counts(view):
    """The numbers beside the statuses to choose from."""
    lines = view.locator("#statuses label").all()
    return {
        one.locator(".status").inner_text(): int(one.locator(".count").inner_text())
        for one in lines
    }


def test_filters_find_what_they_say(browser, place):
    with opened(browser, place) as view:
        assert view.locator("#count").inner_text() == "416 of 416"
        assert counts(view) == {"correct": 206, "wrong": 205, "no answer": 3, "truncated": 2}
        view.select_option("#task", "math")
        assert counts(view) == {"correct": 6, "wrong": 5, "no answer": 3, "truncated": 2}
        view.locator("#statuses input[value=correct]").uncheck()
        view.locator("#statuses input[value=wrong]").uncheck()
        assert listed(view) == {"no answer": 3, "truncated": 2}
        assert counts(view)["correct"] == 6  # what would be found, were it chosen
        view.locator("#differs").check()
        assert listed(view) == {"no answer": 2}
        assert view.locator("#one .facts").inner_text().startswith("no answer lenient: correct")
        view.click("#clear")
        view.fill("#search", "NEEDLE")
        expect(view.locator("#count")).to_have_text("1 of 416")
        assert view.locator("#one mark").all_inner_texts() == ["2", "2"]


def test_a_view_is_in_the_address(browser, place):
    with opened(browser, place, "#task=math&status=wrong,truncated") as view:
        assert listed(view) == {"wrong": 5, "truncated": 2}
        view.locator("#list button").nth(3).click()
        address, heading = view.evaluate("location.hash"), view.locator("#one h3").inner_text()
    with opened(browser, place, address) as view:
        assert listed(view) == {"wrong": 5, "truncated": 2}
        assert view.locator("#one h3").inner_text() == heading
        assert view.locator("#list [aria-current]").count() == 1
        view.evaluate("location.hash = '#status=no_answer'")
        expect(view.locator("#list button")).to_have_count(3)
    with opened(browser, place, "#read=math/two/nothing/0") as view:
        assert "is not among these" in view.locator("#one .missing").inner_text()


def test_a_share_of_the_table_leads_to_its_completions(browser, place):
    with opened(browser, place) as view:
        view.locator("table.results tr", has_text="two").get_by_role("link", name="50.0").nth(
            1
        ).click()
        expect(view.locator("#list button")).to_have_count(4)
        assert listed(view) == {"wrong": 4}
        assert view.locator("#model").input_value() == "two"
        assert "tokens not known" in view.locator("#one .facts").inner_text()


def test_keys_lead_through_the_completions(browser, place):
    with opened(browser, place, "#task=math") as view:
        seen = [view.locator("#one h3").inner_text()]
        for key in ("j", "ArrowRight", "k"):
            view.keyboard.press(key)
            seen.append(view.locator("#one h3").inner_text())
        assert [one.rpartition(" · ")[2] for one in seen] == [f"sample {n}" for n in (0, 1, 2, 1)]
        assert view.locator("#one details.thought").get_attribute("open") == ""  # it has no answer
        view.keyboard.press("t")
        assert view.locator("#one details.thought").get_attribute("open") is None
        view.keyboard.press("/")
        view.keyboard.type("j")
        assert view.locator("#search").input_value() == "j"
        view.get_by_role("button", name="Next completion").focus()
        view.keyboard.press("Enter")
        assert (
            view.evaluate("document.activeElement.getAttribute('aria-label')") == "Next completion"
        )


def test_hostile_texts_are_shown_as_text(browser, place):
    with opened(browser, place, "#task=math") as view:
        answer = view.locator("#one section", has_text="After the thought").locator(".said")
        assert answer.inner_text() == "So \\boxed{1}. " + EVIL
        assert answer.locator("mark").inner_text() == "1"
        view.keyboard.press("j")
        assert view.locator("#one .thought .said").inner_text() == EVIL
        view.keyboard.press("j")
        view.keyboard.press("t")
        told = "nulU+0000 bellU+0007 × 2 turnedU+202Eback \U0001f600 \u05d0</think>"
        assert view.locator("#one .thought .said").inner_text() == told
        assert view.locator("#one img, #one script").count() == 0


def test_a_line_of_a_million_characters_does_not_widen_the_page(browser, place):
    phone = {"width": 390, "height": 800}
    with opened(browser, place, "#task=math&status=no_answer", viewport=phone) as view:
        view.keyboard.press("k")
        for _ in range(2):
            view.keyboard.press("j")
        view.keyboard.press("t")
        shown = view.locator("#one .thought .said").evaluate("one => one.textContent.length")
        assert shown == len(LONG) + len("</think>")
        assert view.evaluate("document.documentElement.scrollWidth") <= phone["width"]


def test_a_long_list_is_gone_through_to_its_end(browser, place):
    with opened(browser, place) as view:
        assert view.locator("#list button").count() == 300
        assert view.locator("#more").inner_text() == "116 more"
        view.click("#more")
        assert view.locator("#list button").count() == 416
        assert not view.locator("#more").is_visible()


def test_results_stand_without_scripts(browser, place):
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(place.as_uri())
    assert view.locator("table.results tbody tr").count() == 5
    assert "takes JavaScript" in view.locator("noscript").inner_text()
    context.close()
