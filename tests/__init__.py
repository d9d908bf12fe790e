import pytest

# What is asserted there is told as in a test.
pytest.register_assert_rewrite("tests.broken_corpora", "tests.interruptions", "tests.resumed_runs")
