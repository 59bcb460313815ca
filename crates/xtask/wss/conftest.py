import support


def pytest_sessionfinish():
    support.clean()
