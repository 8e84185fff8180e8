"""The cards of a report in a real browser: what is seen, clicked and filtered; and names that attack."""

import dataclasses
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.figures.browser import browser, chromium
from vexplain.figures import (
    Card,
    Gallery,
    Picture,
    Report,
    Section,
    Sheet,
    SheetRow,
    Table,
    sheet_pictures,
    sheet_rows,
    write_report,
)
from vexplain.figures.report import rendered
from vexplain.relevance import AlignedAverage, FeatureView

needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed")
EVIL = (  # names of classes
    '</script><script>window.hacked = 1</script>"\'<img src=x onerror="window.hacked=1">',
    "<!--<script>\u2028\u202egnp.\u202c{{ 7 * 7 }}&lt;",
    "猫 кот قط\nclass",
)
FILES = ("a#b?c%41 d.png", "<b onclick='window.hacked=1'>\"\n\\x.png", "كلب/\u202e1.png")
METHODS = ("Relevant features", "Grad-CAM")
SIZE = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Red images with a heatmap that is hot on the left, those of features hot on the right."""
    out = tmp_path_factory.mktemp("page")
    red, hot = np.zeros((SIZE, SIZE, 3)), np.zeros((SIZE, SIZE))
    red[..., 0], hot[:, : SIZE // 2] = 0.8, 1
    for n, _ in enumerate(names()):
        for kind, values in (
            ("images", red),
            ("cam", hot[:, ::-1]),
            ("maps", hot),
            ("parts", np.concatenate([hot[:, ::-1], hot], axis=1)),
        ):
            path = out / file_of(kind, n)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * values).astype(np.uint8)).save(path, "png")
    for kind in ("averages", "crops"):
        Image.new("RGB", (160, 320)).save(out / f"{kind}.jpg")
    return out


def names():
    return (*FILES, *(f"{n}.png" for n in range(57)))


def file_of(kind, n):
    return f"{kind}/{names()[n]}"


def report():
    """Sixty cards of three classes, with known truth; every fifth is wrong, and one has no Grad-CAM."""
    cards = [
        Card(
            name,
            EVIL[n % 3],
            0.99 - n / 100,
            file_of("images", n),
            {METHODS[0]: file_of("maps", n)} | ({METHODS[1]: file_of("cam", n)} if n != 4 else {}),
            EVIL[(n + (n % 5 == 0)) % 3],
            [("conv_1[2]", 0.4), ("conv_1[0]", 0.1)],
            file_of("parts", n),
            EVIL[:2] if n == 1 else (),
        )
        for n, name in enumerate(names())
    ]
    rows = [SheetRow("conv_1[0]", 3.0, "sees 3 × 3 px", 4), SheetRow("conv_1[2]", 1.0, "sees 3 × 3 px", 9)]
    sheets = {name: Sheet(rows, "averages.jpg", "crops.jpg") for name in EVIL}
    layers = Table(("name", "channels"), [("conv_2", "9"), ("conv_10", "10"), ("conv_1", "100")])
    return Report(
        EVIL[0],
        "Lead.",
        sections=[Section("Data", table=layers)],
        gallery=Gallery(cards, sheets, (SIZE, SIZE), ["Above."], ["Of classes."]),
        settings={EVIL[0]: EVIL[1]},
    )


@pytest.fixture(scope="module")
def chrome():
    with browser() as page:
        yield page


@pytest.fixture
def page(chrome, folder):
    chrome.view(1280, 900)
    chrome.open(write_report(folder / "report.html", report()))
    yield chrome
    assert chrome.run("window.hacked") is None
    assert chrome.problems == []


def text(page, selector):
    return page.run(f"[...document.querySelectorAll({selector!r})].map((one) => one.textContent)")


def click(page, selector, n=0):
    page.run(f"document.querySelectorAll({selector!r})[{n}].click()")


def shown(page):
    return text(page, ".card .file .cut")


def choose(page, selector, value):
    page.run(
        f"{{ const box = document.querySelector({selector!r}); box.value = {json.dumps(value)};"
        "box.dispatchEvent(new Event(box.type === 'search' || box.type === 'range' ? 'input' : 'change')); }"
    )


@needs_chromium
def test_cards_say_what_was_predicted_and_names_are_text(page):
    assert shown(page) == list(names()[:48]), "a screenful, in the order given"
    assert text(page, ".card .class")[:4] == [*EVIL, EVIL[0]]
    assert text(page, ".card .probability")[:2] == ["99.0\xa0%", "98.0\xa0%"]
    assert text(page, ".card .truth")[:2] == [f"wrong, it is {EVIL[1]}", "correct"]
    assert text(page, ".card .labels") == [f"labels: {EVIL[0]}, {EVIL[1]}"]
    assert text(page, ".card .features .name")[:2] == ["conv_1[2]", "conv_1[0]"]
    assert text(page, "h1") == [EVIL[0]]
    assert page.run("document.querySelectorAll('[onerror], [onclick], main script, img[src=x]').length") == 0
    assert page.run("[...document.querySelectorAll('.card bdi')].every((one) => one.children.length === 0)")
    assert len(text(page, "#class option")) == 4


@needs_chromium
def test_pictures_load_whatever_the_names_of_files(page):
    images = ".card:nth-child(-n + 3) img"
    page.wait_for(f"[...document.querySelectorAll('{images}')].every((image) => image.complete)")
    assert page.run(f"[...document.querySelectorAll('{images}')].every((image) => image.naturalWidth > 0)")
    assert page.run("document.querySelectorAll('.card:first-child img').length") == 2 + 2 * 3


@needs_chromium
def test_filters_search_and_sorting(page):
    click(page, "#verdict button", 2)
    assert text(page, "#count") == ["12 of 60 images"]
    assert shown(page) == [name for n, name in enumerate(names()) if n % 5 == 0]
    choose(page, "#class", "0")
    wrong = [n for n in range(0, 60, 5) if 0 in (n % 3, (n + 1) % 3)]
    assert shown(page) == [names()[n] for n in wrong]
    click(page, "#verdict button", 0)
    choose(page, "#class", "-1")
    choose(page, "#search", "C%41")
    assert shown(page) == [FILES[0]]
    choose(page, "#search", "no such name")
    assert shown(page) == []
    assert page.run("document.querySelector('#nothing').checkVisibility()")
    choose(page, "#search", "")
    choose(page, "#sort", "least confident")
    assert shown(page)[0] == names()[-1]
    choose(page, "#sort", "name")
    assert [name for name in shown(page) if name[0].isdigit()][:11] == [f"{n}.png" for n in range(11)]
    click(page, "#method button", 2)
    assert text(page, "#count") == ["59 of 60 images"]
    assert set(text(page, ".card .tabs [aria-pressed=true]")) == {METHODS[1]}


@needs_chromium
def test_more_cards_come_with_scrolling(page):
    page.run("document.querySelector('#more').scrollIntoView()")
    page.wait_for("document.querySelectorAll('.card').length === 60")


@needs_chromium
def test_enlarging_turning_and_what_a_feature_looks_like(page):
    click(page, ".enlarge", 1)
    assert page.run("document.querySelector('dialog').open")
    assert text(page, "dialog .class") == [EVIL[1]]
    assert "times its response to this image" in text(page, "dialog .note")[0]
    page.press("ArrowRight")
    assert text(page, "dialog .bars .cut") == [names()[2]]
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert text(page, "dialog .bars .cut") == [names()[0]]
    click(page, "dialog .pills button", 1)
    assert text(page, "dialog .pills [aria-pressed=true]") == [METHODS[1]]
    click(page, "dialog .features button")
    assert text(page, "dialog h3") == [EVIL[0]]
    assert text(page, "dialog .kind.chosen .name") == ["conv_1[2]"]
    assert page.run("document.querySelectorAll('dialog .kind.chosen .crops .tile').length") == 9
    click(page, "dialog [aria-label='Back to the image']")
    assert text(page, "dialog .bars .cut") == [names()[0]]
    page.press("Escape")
    page.wait_for("!document.querySelector('dialog').open")
    click(page, "#classes .sheet-link", 2)
    assert text(page, "dialog h3") == [EVIL[2]]
    click(page, "dialog .note button")
    assert text(page, "#count") == ["24 of 60 images"], "of the class, or predicted as it"


@needs_chromium
def test_the_slider_lays_the_map_over_the_image(page, tmp_path):
    page.view(500, 1000)
    page.run("document.querySelector('.card').scrollIntoView({behavior: 'instant'})")
    images = "[...document.querySelectorAll('.card:first-child img')]"
    page.wait_for(f"{images}.every((image) => image.complete)")

    def colors(selector):
        """Those of the left and of the right half of an element."""
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        x, y, width, height = page.run(f"(({{x, y, width, height}}) => [x, y, width, height])({box})")
        page.run(f"Promise.all({images}.map((image) => image.decode()))")
        page.screenshot(tmp_path / "seen.png")
        pixels = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"), int)
        return [pixels[round(y + height / 2), round(x + share * width)] for share in (0.25, 0.75)]

    strength = "#strength input"
    choose(page, strength, "0")
    for place in colors(".card .stage"):
        np.testing.assert_allclose(place, [204, 0, 0], atol=3)
    choose(page, strength, "1")
    left, right = colors(".card .stage")
    np.testing.assert_allclose(left, [252, 255, 164], atol=4)  # the end of inferno
    assert np.ptp(right) <= 3, "where there is no heat the image is gray"
    left, right = colors(".card .features li .stage")
    np.testing.assert_allclose(right, [252, 255, 164], atol=4)
    click(page, ".card .tabs button", 1)
    np.testing.assert_allclose(colors(".card .stage")[1], [252, 255, 164], atol=4)


@needs_chromium
def test_a_table_is_sorted_as_numbers_are(page):
    rows = "section table tbody td:first-child"
    click(page, "section table th button", 0)
    assert text(page, rows) == ["conv_1", "conv_2", "conv_10"]
    click(page, "section table th button", 1)
    click(page, "section table th button", 1)
    assert text(page, rows) == ["conv_1", "conv_10", "conv_2"]
    assert page.run("document.querySelectorAll('section table th')[1].ariaSort") == "descending"


@needs_chromium
def test_it_fits_a_phone_and_the_dark(page):
    light = page.run("getComputedStyle(document.body).backgroundColor")
    page.view(400, 800, dark=True)
    assert page.run("getComputedStyle(document.body).backgroundColor") != light
    assert page.run("document.documentElement.scrollWidth") <= 400
    click(page, ".enlarge")
    assert page.run("document.querySelector('dialog').scrollWidth") <= 400


@needs_chromium
def test_what_is_not_of_the_page_does_not_run(chrome, folder):
    chrome.open(write_report(folder / "report.html", report()))
    chrome.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
    )
    evil = "<img src=data: onerror='window.hacked=1'><p style='color: red'>"
    chrome.run(
        f'document.body.append(document.createElement("div")), document.body.lastChild.innerHTML = "{evil}"'
    )
    chrome.run("new Promise((done) => setTimeout(done, 50))")
    assert chrome.run("window.hacked") is None
    assert sum("Content Security Policy" in problem for problem in chrome.problems) >= 2


@needs_chromium
def test_a_single_file_needs_no_other(chrome, folder, tmp_path):
    made = write_report(folder / "single.html", report(), is_single_file=True)
    chrome.view(1280, 900)
    chrome.open(made.rename(tmp_path / "mailed.html"))
    chrome.wait_for(
        "[...document.querySelectorAll('.card:first-child img')].every((i) => i.naturalWidth > 0)"
    )
    assert chrome.run("performance.getEntriesByType('resource').every((one) => one.name.startsWith('data:'))")
    assert chrome.problems == []


def test_no_name_ends_the_data(folder):
    page = rendered(report(), folder, is_single_file=False)
    [data] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert not re.search("[<>&\u2028\u2029]", data)
    content = json.loads(data)
    assert content["classes"] == list(EVIL)
    assert [card[0] for card in content["cards"]] == list(names())
    assert len(page) < 60_000, "pictures are beside it"
    assert re.findall("<script", page) == ["<script"] * 2


def test_a_card_with_a_feature_of_no_sheet_is_named():
    cards = [dataclasses.replace(report().gallery.cards[0], features=[("conv_7[1]", 0.1)])]
    gallery = dataclasses.replace(report().gallery, cards=cards)
    with pytest.raises(
        ValueError, match=r"card 'a#b.*': feature 'conv_7\[1\]' is not in the sheet of its class"
    ):
        rendered(Report("a", "b", gallery=gallery), is_single_file=False)


def test_pictures_of_a_sheet_are_squares_of_what_is_seen():
    crops = np.full((2, 4, 2, 1), 0.2)
    crops[1, :2] = np.nan
    view = FeatureView("cat", "conv_1", 3, 2.0, crops[0], crops, np.zeros(2), np.zeros(2), False, (4, 2))
    aligned = (AlignedAverage(np.full((4, 2, 1), 0.6), 0.7), AlignedAverage(np.full((4, 2, 1), 0.8), 0.3))
    both = sheet_pictures([view, view._replace(aligned=aligned)])[0]
    assert both.shape == (320, 480, 3)
    assert [int(both[240, 80 + 160 * n, 0]) for n in range(3)] == [153, 204, 51], "the paper's comes last"
    assert sheet_rows([view._replace(aligned=aligned)])[0].shares == (0.7, 0.3)
    averages, parts = sheet_pictures([view])
    assert averages.shape == (160, 160, 3)
    assert parts.shape == (96, 9 * 96, 3)
    assert set(averages[80].ravel()) >= {51}, "gray 0.2"
    np.testing.assert_array_equal(averages[80, 0], averages[0, 159])  # beside it
    np.testing.assert_array_equal(averages[80, 40:120], np.full((80, 3), 51))
    np.testing.assert_array_equal(parts[10, 96 + 48], averages[80, 0])  # no pixel there
    assert sheet_rows([view]) == (SheetRow("conv_1[3]", 2.0, "sees 4 × 2 px", 2),)


@needs_chromium
def test_a_report_without_cards_has_its_style_and_runs_nothing(chrome, tmp_path):
    picture = Picture(Figure(figsize=(6, 1), dpi=50), "A figure.", "")
    chrome.open(
        write_report(tmp_path / "a.html", Report("a", "b", sections=[Section("c", figures=[picture])]))
    )
    assert chrome.run("document.querySelector('figure img').getBoundingClientRect().width") == 600
    assert chrome.run("getComputedStyle(document.body).margin") == "0px"
    chrome.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
    )
    assert chrome.run("window.hacked") is None
    assert ["Content Security Policy" in problem for problem in chrome.problems] == [True]
