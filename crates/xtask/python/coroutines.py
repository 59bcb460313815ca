"""Tests that are coroutines, for all suites in Python."""

import asyncio
import functools
import inspect

# Longest wait for anything that should happen at once.
DEADLINE = 20


def scenario(function):
    """Runs a test that is a coroutine, under a time limit of its own. (A library's waits may have none.)"""

    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 3 * DEADLINE))

    run.__signature__ = inspect.signature(function)
    return run
