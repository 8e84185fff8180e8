"""What notebooks show of results: a table whose cells are text, whatever the names are."""

from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain._text import html_table
from vexplain.evaluation import Benchmark, Score
from vexplain.evaluation.changed_networks import MapSimilarity
from vexplain.evaluation.flipping import FlippingScores
from vexplain.evaluation.sanity import SanityChecks, SanityScores
from vexplain.relevance import Explanation, Relevance, TopFeatures
from vexplain.transforms import layers

EVIL = '<script>alert(1)</script>"&\u202e'


class Shown(HTMLParser):
    """The tags and the cells, by row, of what a notebook shows."""

    def __init__(self, result):
        super().__init__()
        self.tags, self.rows, self.caption = set(), [], ""
        self._place = ""
        self.feed(result._repr_html_())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._place = tag if tag != "bdi" else self._place
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self._place in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._place == "caption":
            self.caption += data


def score(value):
    return Score({"IoU area": np.array([value, value + 0.2])}, np.linspace(0.4, 0, 101), "positive part")


def sanity(*failures):
    same = MapSimilarity(*np.ones((len(MapSimilarity._fields), 2)))
    areas = np.array([0.1, 0.3])
    return SanityScores({}, (same,), {}, None, same, areas, areas / 2, "edges", (0.0, 0.1), failures)


def explanation():
    found = TopFeatures(
        jnp.array([[4, 1], [2, 0]]), jnp.array([[0.5, 0.25], [0.125, 0]]), jnp.array([[1, 1], [1, 0]], bool)
    )
    return Explanation(
        jnp.zeros((2, 3, 5)), jnp.zeros((2, 2, 3, 5)), found, jnp.array([1, 0]), jnp.array([[0, 2.5], [7, 0]])
    )


def relevance():
    weights, zeros = np.array([[0.5, 0], [0.0, 1], [2, 0]]), np.zeros(2)
    return Relevance(weights, zeros, zeros, np.float64(3), (("conv_1", 1), (EVIL, 2)), (EVIL, "dog"))


def table():
    return layers(lambda v, x: jax.nn.relu(x.mean((1, 2)) @ v), jnp.ones((3, 5)), jnp.zeros((2, 8, 8, 3)))


CASES = {
    "relevance": (
        relevance(),
        [
            ["class", "features", "largest weights"],
            [EVIL, "2", f"{EVIL}[1] 2, conv_1[0] 0.5"],
            ["dog", "1", f"{EVIL}[0] 1"],
        ],
        "3 of 3 features of 2 layers are relevant for some of 2 classes (mu = 3)",
    ),
    "explanation": (
        explanation(),
        [
            ["image", "class explained", "score", "features by r"],
            ["0", "1", "2.5", "4 (r = 0.5), 1 (r = 0.25)"],
            ["1", "0", "7", "2 (r = 0.12)"],
        ],
        "2 images, 2 maps each of 3 × 5 pixels",
    ),
    "score": (
        score(0.1),
        [["score", "mean", "standard error"], ["IoU area", "0.200", "0.100"]],
        "2 images, positive part of the maps",
    ),
    "flipping": (
        FlippingScores({EVIL: np.array([0.1, 0.3])}, {EVIL: np.array([0.7, 0.8])}),
        [["baseline", "deletion", "insertion"], [EVIL, "0.200", "0.750"]],
        "Means of areas over images",
    ),
    "sanity": (
        SanityChecks({EVIL: sanity(), "b": sanity("same map: really")}, {}, None),
        [
            ["method", "IoU area", "IoU area, weights shuffled", "sanity checks"],
            [EVIL, "0.200", "0.100", "pass"],
            ["b", "0.200", "0.100", "same map"],
        ],
        "",
    ),
    "benchmark": (
        Benchmark(EVIL, {"task": {EVIL: score(0.1), "gradient": score(0.3)}}, {}),
        [["method", "IoU area", "sanity checks"], ["gradient", "0.400*", ""], [f"{EVIL} <", "0.200", ""]],
        f"Means over task; * significantly above {EVIL}, - below",
    ),
    "layers": (
        table(),
        [
            ["name", "kind", "shape", "receptive field", "sees"],
            ["pool_1", "pool", "3", "8 × 8 px", "the whole image"],
            ["dense_1", "dense", "5", "8 × 8 px", "the whole image"],
            ["relu_1", "relu", "5", "8 × 8 px", "the whole image"],
        ],
        "3 layers",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_notebook_shows_the_table_and_names_are_text(name):
    result, rows, caption = CASES[name]
    shown = Shown(result)
    assert shown.rows == rows
    assert shown.caption == caption
    assert shown.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "bdi"}


def test_what_has_no_values_shows_no_table():
    assert jax.eval_shape(lambda r: r, relevance())._repr_html_() is None
    seen = []
    jax.make_jaxpr(lambda e: seen.append(e._repr_html_()) or e.heatmaps)(explanation())
    assert seen == [None]


def test_a_long_table_is_cut_and_says_so():
    text = html_table(["n"], [[str(n)] for n in range(43)])
    assert text.count("<td") == 40
    assert "and 3 more rows" in text
