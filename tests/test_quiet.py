"""A logger is held back for as long as a block runs, and no longer."""

from __future__ import annotations

import logging

import pytest

from inspo_hub.quiet import quieter

LOGGER = logging.getLogger("inspo_hub.some.room")


def fail_quietly() -> None:
    with quieter(LOGGER.name, logging.WARNING):
        assert not LOGGER.isEnabledFor(logging.INFO)
        raise KeyError


@pytest.mark.parametrize("before", [logging.NOTSET, logging.DEBUG])
def test_the_level_is_as_before_also_after_an_error(before: int) -> None:
    LOGGER.setLevel(before)
    with pytest.raises(KeyError):
        fail_quietly()
    assert LOGGER.level == before
