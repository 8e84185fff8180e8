"""Reports of tests have coarse pictures: at the resolution of a page they take longer than what they show."""

import pytest

from vexplain.figures import style

DPI = 50  # text is still text; sharpness is for tests/figures


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", DPI)
        yield
