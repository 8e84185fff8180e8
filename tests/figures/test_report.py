"""The report needs nothing but itself, says what it was told, and is written whole or not at all."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    package_versions,
    png_bytes,
    save_figure,
    save_pictures,
    write_report,
)

EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def drawn():
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().plot([0, 1])
    return figure


@pytest.fixture
def report():
    table = Table(["method", "area"], [["ours", "40 %"], [EVIL, 3.5]], "All methods.", bold_rows=[0])
    return Report(
        "Cats & dogs",
        f"What was learned {EVIL}.",
        key_figures=[("Accuracy", "99 %", "held out")],
        sections=[
            Section("What was learned", ["First.", "Second."], [Picture(drawn(), "A line.", 'a "line"')]),
            Section("What was learned", figures=[Picture(png_bytes(drawn()), EVIL, EVIL)], table=table),
            Section("¿…?"),
        ],
        settings={"mu": 5.0, "out": EVIL},
        versions=package_versions(["jax", "no-such-package"]),
    )


@pytest.fixture
def page(report, tmp_path):
    return Page(write_report(tmp_path / "new folder" / "report.html", report))


def test_it_loads_and_runs_nothing(page):
    links = [
        v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset", "action", "data")
    ]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "base")]
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", page.text)


def test_images_are_whole_pngs_with_their_size_and_alternative_text(page):
    images = page.all("img")
    assert [image["alt"] for image in images] == ['a "line"', EVIL]
    for image in images:
        png = base64.b64decode(image["src"].split(",")[1])
        assert Image.open(io.BytesIO(png)).format == "PNG"
        Image.open(io.BytesIO(png)).load()
    assert (images[0]["width"], images[0]["height"]) == ("200", "100")


def test_it_says_all_it_was_told(page):
    for text in (
        "Cats & dogs",
        "Accuracy",
        "99 %",
        "held out",
        "First.",
        "Second.",
        "A line.",
        "All methods.",
    ):
        assert text in page.text
    for text in ("ours", "40 %", "3.5", "mu", "5.0", "Python", "not installed"):
        assert text in page.text
    assert page.text.count(EVIL) == 4  # escaped, it is text and no tag
    assert len(page.all("details")) == 2


def test_the_contents_lead_to_the_sections(page):
    targets = [a["href"][1:] for a in page.all("a")]
    anchors = [h["id"] for h in page.all("h2")]
    assert len(set(anchors)) == 3
    assert set(targets) == set(anchors)


def test_columns_of_numbers_are_flush_right_and_bold_rows_marked(page):
    assert [h.get("class") for h in page.all("th") if h.get("scope") == "col"] == [None, "number"]
    assert [row.get("class") for row in page.all("tr")][1:3] == ["bold", None]


def test_a_report_may_hold_very_little(tmp_path):
    page = Page(write_report(tmp_path / "a.html", Report("Title", "Lead.")))
    assert not page.all("details")
    assert not page.all("nav")


def test_the_same_report_gives_the_same_file(report, tmp_path):
    files = [write_report(tmp_path / name, report).read_bytes() for name in ("a.html", "b.html")]
    assert files[0] == files[1]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"figure 'A line.': its bytes are no PNG"):
        write_report(
            path, Report("a", "b", sections=[Section("c", figures=[Picture(b"GIF89a", "A line.", "")])])
        )
    monkeypatch.setattr("os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(path, Report("a", "b"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_saved_whole(suffix, tmp_path):
    path = save_figure(drawn(), tmp_path / "deep" / f"figure.{suffix}")
    assert path.stat().st_size > 500
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_bad_inputs_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"path ends in '.gif': expected one of .*figure.png"):
        save_figure(drawn(), tmp_path / "figure.gif")
    with pytest.raises(ValueError, match=r"path ends in '.txt': expected .html, as in report.html"):
        write_report(tmp_path / "report.txt", Report("a", "b"))
    table = Table(["one", "two"], [["only one"]])
    with pytest.raises(ValueError, match=r"table row \['only one'\] has 1 cells, the header 2"):
        write_report(tmp_path / "report.html", Report("a", "b", sections=[Section("c", table=table)]))


def test_named_pictures_are_saved_alone(tmp_path):
    pictures = [Picture(drawn(), "A line.", "", name="line"), Picture(drawn(), "Another.", "")]
    report = Report("a", "b", sections=[Section("c", figures=pictures)])
    saved = save_pictures(tmp_path / "figures", report)
    (path,) = (tmp_path / "figures").iterdir()
    assert path.name == "line.png"
    assert path.read_bytes() == png_bytes(pictures[0].image)
    assert saved.sections[0].figures[0].image == path.read_bytes()
    pages = [write_report(tmp_path / f"{n}.html", r).read_bytes() for n, r in enumerate((report, saved))]
    assert pages[0] == pages[1]  # also as large
