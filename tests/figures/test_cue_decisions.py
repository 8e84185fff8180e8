"""The customary figure of shape bias: marks where the numbers are, and none where there is no decision."""

import numpy as np
import pytest

from vexplain.evaluation import shape_bias
from vexplain.figures import shape_bias_figure


def test_marks_are_fractions_of_texture_decisions():
    shapes, textures = [0, 0, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0]
    biases = {
        "one": shape_bias([0, 1, 1, 1, 1, 1], shapes=shapes, textures=textures, class_names="abc"),
        "other": shape_bias([2, 2, 0, 0, 1, 1], shapes=shapes, textures=textures, class_names="abc"),
    }
    figure = shape_bias_figure(biases)
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert len(marks) == 1  # the other one decided for neither cue
    np.testing.assert_allclose(np.asarray(marks[0].get_xdata(), float), [0.5, 0, np.nan])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.yaxis_inverted()
    texts = [text.get_text() for text in figure.texts]
    assert {"75.0 %", "50 / 17 / 33", "not defined", "0 / 0 / 100"} <= set(texts)


def test_mistakes_are_named():
    one = shape_bias(["a"], shapes=["a"], textures=["b"])
    with pytest.raises(ValueError, match="biases is empty"):
        shape_bias_figure({})
    with pytest.raises(ValueError, match="expected one list, the same for all"):
        shape_bias_figure({"one": one, "other": shape_bias(["a"], shapes=["a"], textures=["c"])})
