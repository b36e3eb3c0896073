"""What FastAPI's background tasks know nothing of: options, and how they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from taskq import ConfigError, UnknownOption
from taskq.fastapi import BackgroundTasks


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"retries": 3}, UnknownOption, "no option 'retries'; did you mean 'retry'?"),
        ({"whem": "always"}, UnknownOption, "no option 'whem'; did you mean 'when'?"),
        ({"priority": 10}, ConfigError, "use a whole number from 0 to 9"),
    ],
)
async def test_options_are_checked_where_they_are_typed(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    tasks = BackgroundTasks()  # type: ignore[operator]

    with pytest.raises(error) as caught:
        tasks.options(**options)

    assert said in str(caught.value)
    assert tasks.tasks == []
