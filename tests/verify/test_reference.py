"""The slow reference agrees with every published vector, else it proves nothing about ours."""

import pytest

from tests.verify import reference
from tests.verify.test_schemes import PUBLISHED, Published


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector.name)
def test_the_reference_says_what_the_ledger_says(vector: Published):
    said = reference.verify(vector.public_key, vector.message, vector.signature)
    assert said is vector.good
