"""Pictures: boxes where they belong, in their colors, and labels that stay on the picture."""

import numpy as np
import pytest

from tfbio.detection import pictures

NAMES = ("zero", "one")
BLACK = np.zeros((100, 150, 3), np.uint8)


def test_a_predicted_box_is_a_solid_line_and_a_true_one_dashed():
    predicted = {"boxes": [[20, 40, 80, 80]], "classes": [1], "confidence": [0.5]}
    drawn = pictures.draw(BLACK, NAMES, predicted)
    assert drawn.shape == (500, 750, 3)
    assert (drawn[200:400, 100] == pictures.color(1)).all()
    assert (drawn[399, 100:400] == pictures.color(1)).all()
    assert not drawn[230:380, 120:380].any()
    line = pictures.draw(BLACK, NAMES, true=predicted)[210:390, 100, 0]
    assert set(line.tolist()) == {0, 255}


def test_what_is_padding_or_of_a_low_score_is_not_drawn():
    predicted = {
        "boxes": [[20, 40, 80, 80], [0, 0, 9, 9], [-1] * 4],
        "classes": [1, 0, -1],
        "confidence": [0.4, 0.9, -1],
    }
    drawn = pictures.draw(BLACK, NAMES, predicted, least=0.95)
    assert not drawn.any()
    drawn = pictures.draw(BLACK, NAMES, predicted, least=0.5)
    assert drawn[:200].any()
    assert not drawn[220:].any()


def test_weak_boxes_are_thin_and_dotted_and_only_fill_up():
    boxes = [[20, 40, 80, 80], [90, 40, 140, 80], [20, 5, 60, 30], [70, 5, 110, 30]]
    classes, scores = [1, 0, 0, 1], [0.6, 0.2, 0.04, 0.01]
    predicted = {"boxes": boxes[:1], "classes": classes[:1], "confidence": scores[:1]}
    strongest = {"boxes": boxes, "classes": classes, "confidence": scores}
    weak = pictures.choose_weak(predicted, strongest)
    assert weak["confidence"].tolist() == [0.2, 0.04]
    drawn = pictures.draw(BLACK, NAMES, predicted, least=pictures.LEAST, weak=weak)
    assert (drawn[200:400, 100] == pictures.color(1)).all()
    column = drawn[210:390, 450]
    dots = (column == pictures.color(0)).all(-1)
    assert 0.3 < dots.mean() < 0.7
    assert not drawn[210:390, 451].any()
    assert (drawn[200:400, 101] == pictures.color(1)).all()  # twice as wide
    # The fourth is not drawn, and none is where three are strong, or nothing was predicted.
    assert not drawn[:140, 380:].any()
    strong = {"boxes": boxes[:3], "classes": classes[:3], "confidence": [0.9, 0.5, 0.3]}
    assert not len(pictures.choose_weak(strong, strongest)["classes"])
    none = {"boxes": [[-1] * 4] * 2, "classes": [-1] * 2, "confidence": [-1] * 2}
    assert not len(pictures.choose_weak(none, none)["classes"])
    strongest["boxes"] = [boxes[0], [150, 9, 150, 30], *boxes[2:]]  # the second lies beside it
    assert pictures.choose_weak(none, strongest)["confidence"].tolist() == [0.04, 0.01]


def test_boxes_at_the_border_or_upside_down_are_drawn():
    boxes = [[0, 0, 150, 100], [149, 99, 150, 100], [90, 90, 10, 10], [-50, -50, 300, 300]]
    found = {"boxes": boxes, "classes": [0, 1, 0, 1], "confidence": [0.1, 0.2, 0.3, 0.4]}
    assert pictures.draw(BLACK + 0.5, NAMES, found, found).dtype == np.uint8


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(height, width, 3\). Received: shape \(8, 8, 1\)"):
        pictures.draw(np.zeros((8, 8, 1)), NAMES)


def test_a_grid_keeps_every_picture():
    shades = [np.full((10, 20, 3), 50 * index, np.uint8) for index in range(4)]
    whole = pictures.grid(shades, gap=2)
    assert whole.shape == (22, 42, 3)
    assert whole[::12, ::22, 0].tolist() == [[0, 50], [100, 150]]
    assert (whole[10:12] == 255).all()
