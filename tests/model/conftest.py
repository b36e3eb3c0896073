"""What the machine asserts is to be explained as what tests assert."""

import pytest

pytest.register_assert_rewrite("tests.model.machine")
