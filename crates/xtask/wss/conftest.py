import pytest

import support


@pytest.fixture(scope="module")
def plain():
    """A gateway as it is when nothing special is asked for."""
    with support.gateway() as at:
        yield at


def pytest_sessionfinish():
    support.clean()
