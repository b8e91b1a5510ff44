"""The configuration is shown with where each value came from, and a wrong one is named."""

import pytest


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "paychan.toml"
    path.write_text('datadir = "here"\n[shard]\ntick_ms = 50\n')
    return path


def test_show_says_where_each_value_came_from(run, file, monkeypatch):
    monkeypatch.setenv("PAYCHAN_LANE__GATHER_MS", "3")
    seen = {row["key"]: (row["value"], row["origin"]) for row in run("config", "show").lines}
    assert seen["shard.tick_ms"] == (20, "default")
    assert seen["lane.gather_ms"] == (3, "environment PAYCHAN_LANE__GATHER_MS")
    given = run("config", "show", "--config", file).lines
    assert {"key": "shard.tick_ms", "value": 50, "origin": f"file {file}"} in given


def test_check_is_silent_on_standard_output_and_counts_what_was_given(run, file):
    seen = run("config", "check", "--config", file)
    assert (seen.code, seen.out) == (0, "")
    assert "2 of them not default" in seen.err
    asked = run("config", "check", "--config", file, "--json")
    assert asked.lines == [{"keys": len(run("config", "show").lines), "given": 2}]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[shard]\ntick_ns = 1\n", "shard.tick_ns"),
        ("[shard]\ntick_ms = 0\n", "tick_ms"),
        ('[verify]\nverification = "oldest"\n', "verification"),
        ('[verify]\nverification = "newest"\n[risk]\nvelocity_claims_max = 5\n', "risk"),
        ("no toml", "paychan.toml"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "show"])
def test_what_does_not_hold_is_named(run, file, verb, text, named):
    file.write_text(text)
    seen = run("config", verb, "--config", file)
    assert (seen.code, seen.out) == (2, "")
    assert named in seen.err


def test_the_newest_may_speak_for_all_where_no_rule_of_risk_does(run, file):
    file.write_text('[verify]\nverification = "newest"\n')
    assert run("config", "check", "--config", file).code == 0


def test_the_server_s_address_in_the_environment_is_no_setting(run, monkeypatch):
    monkeypatch.setenv("PAYCHAN_SERVER", "http://127.0.0.1:1")
    assert run("config", "check").code == 0


@pytest.mark.parametrize("listen", ["8480", "localhost", "localhost:", ":80", "localhost:http"])
def test_serve_wants_a_host_and_a_port(run, listen):
    seen = run("serve", "--listen", listen)
    assert seen.code == 2
    assert "is not HOST:PORT, such as 127.0.0.1:8480" in seen.err


def test_serve_does_not_start_with_a_setting_nobody_knows(run, file):
    file.write_text("[gateway]\nprot = 80\n")
    seen = run("serve", "--config", file)
    assert seen.code == 2
    assert "gateway.prot" in seen.err
