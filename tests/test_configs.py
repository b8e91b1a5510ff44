"""The configurations that come along can be used as they are."""

from pathlib import Path

import pytest

from engine.config import Config, load_config

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_that_comes_along_loads_and_changes_something(path):
    config, origins = load_config(path, {}, {})
    assert config != Config()
    assert set(origins.values()) == {"default", f"file {path}"}


def test_some_configurations_come_along():
    assert {path.stem for path in FILES} == {"guarded", "single-process"}
