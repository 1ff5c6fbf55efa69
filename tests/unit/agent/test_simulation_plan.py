"""What a simulation will do, known before it does anything."""

import resource
import subprocess
import sys
from collections import Counter

import pytest

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.simulation import limits
from fleetmark_agent.simulation.plan import MAX_DEVICES, Kind, Plan, kinds_of
from fleetmark_protocol.errors import ConfigError, StoreUnavailable


def plan(total=10, first=0, count=None, **more):
    return Plan(total=total, first=first, count=total if count is None else count, **more)


def test_a_device_has_the_same_name_however_many_there_are():
    assert plan(10).name(7) == plan(50_000).name(7) == "sim-00007"
    assert plan(10, prefix="load").name(0) == "load-00000"


def test_samples_of_the_fleet_are_spread_over_the_period():
    one = plan(1000, rate_hz=2.0)
    tenths = Counter(int(one.first_sample_s(number) * 20) for number in range(1000))
    assert set(tenths) == set(range(10)), "all within half a second"
    assert max(tenths.values()) - min(tenths.values()) <= 5


def test_devices_start_over_the_ramp_whichever_process_has_them():
    whole, part = plan(100, ramp_s=10), plan(100, first=50, count=50, ramp_s=10)
    assert [whole.start_s(number) for number in (0, 50, 99)] == [0, 5, 9.9]
    assert [part.start_s(number) for number in part.numbers[:2]] == [5, 5.1]


def test_every_device_makes_as_many_samples_as_fit():
    assert plan(duration_s=60, rate_hz=0.5).samples == 30
    assert plan(duration_s=1, rate_hz=3).samples == 3
    assert plan(duration_s=0.1, rate_hz=1).samples == 1
    assert plan().samples is None


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.2, 200), (0.5, 500), (1, 1000)])
def test_the_flaky_share_holds_for_the_fleet_and_for_each_part_of_it(share, expected):
    one = plan(1000, flaky=share)
    flaky = [one.is_flaky(number) for number in range(1000)]
    assert sum(flaky) == expected
    assert abs(sum(flaky[:500]) - expected / 2) <= 1


def test_a_device_has_the_settings_of_an_agent_of_its_own(tmp_path):
    settings = AgentSettings(fleet="f", tags=("lab",))
    made = plan(10, state_dir=tmp_path).device_settings(settings, 3)
    assert (made.fleet, made.device_id) == ("f", "sim-00003")
    assert made.tags == ("simulated", "lab")
    assert made.outbox_file == tmp_path / "sim-00003" / "outbox.db"


def test_devices_are_of_the_kinds_in_turn_by_tag_name_and_engines(tmp_path):
    kinds = kinds_of(["pi400:llama_cpp+ollama", "t3-large", "bare:"])
    made = plan(7, kinds=kinds, backends=("ollama", "xllamacpp"), state_dir=tmp_path)
    assert [made.name(number) for number in (0, 4, 5)] == [
        "sim-pi400-00000",
        "sim-t3-large-00004",
        "sim-bare-00005",
    ]
    assert [made.offered(number) for number in (3, 4, 5)] == [
        ("llama_cpp", "ollama"),
        ("ollama", "xllamacpp"),
        (),
    ]
    settings = made.device_settings(AgentSettings(tags=("lab",)), 6)
    assert settings.tags == ("simulated", "pi400", "lab")
    assert settings.device_id == "sim-pi400-00006"
    made.check()


def test_without_kinds_devices_are_as_they_were():
    assert plan(2, backends=("ollama",)).offered(1) == ("ollama",)
    assert plan(2).kind(1) is None
    assert kinds_of([]) == ()


@pytest.mark.parametrize("words", [["Pi"], [""], [":ollama"], ["pi", "pi:ollama"], ["a b"]])
def test_a_kind_that_is_no_tag_or_comes_twice_is_refused(words):
    with pytest.raises(ConfigError, match="--kind"):
        kinds_of(words)


def test_a_kind_that_makes_a_name_too_long_is_refused_whichever_it_is():
    kinds = (Kind("x" * 60), Kind("y"))
    with pytest.raises(ConfigError, match="can be no device's name"):
        plan(8, kinds=kinds).check()


@pytest.mark.parametrize("prefix", ["", "Sim", "a b", "x" * 60, "-sim", "a/b"])
def test_a_prefix_that_makes_no_name_is_refused(prefix):
    with pytest.raises(ConfigError, match="--prefix"):
        plan(prefix=prefix).check()


def test_more_devices_than_names_are_refused():
    plan(MAX_DEVICES).check()
    with pytest.raises(ConfigError, match="names for"):
        plan(MAX_DEVICES + 1).check()


@pytest.mark.parametrize(("first", "count"), [(0, 11), (10, 1), (-1, 5), (3, 0)])
def test_a_part_outside_of_the_whole_is_refused(first, count):
    with pytest.raises(ConfigError, match="not among"):
        plan(10, first=first, count=count).check()


@pytest.fixture
def limit(monkeypatch):
    """Pretend to a limit of open files; what is asked for is remembered."""

    def pretend(soft, hard):
        asked = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
        return asked

    return pretend


def test_the_limit_of_open_files_is_raised_as_far_as_it_is_needed(limit):
    asked = limit(1024, 20_000)
    limits.allow_files(1000)
    assert asked == [(4128, 20_000)]
    asked.clear()
    limits.allow_files(100)
    assert asked == []


def test_a_hard_limit_that_is_too_low_is_an_error_that_says_how_many_would_fit(limit):
    limit(1024, 4096)
    with pytest.raises(ConfigError) as caught:
        limits.allow_files(5000)
    assert "20128" in str(caught.value)
    assert "4096" in str(caught.value)
    assert "at most 992 a process, see --processes" in str(caught.value)
    limits.allow_files(992)


def test_two_simulations_cannot_hold_the_same_device(tmp_path):
    # Locks are a process's own, so another one has to try.
    def try_elsewhere(first, count):
        code = (
            "from pathlib import Path; from fleetmark_agent.simulation import limits\n"
            f"with limits.held(Path({str(tmp_path)!r}), {first}, {count}): print('held')"
        )
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    with limits.held(tmp_path, 10, 10):
        assert try_elsewhere(0, 10).stdout == "held\n"
        assert try_elsewhere(20, 5).stdout == "held\n"
        refused = try_elsewhere(19, 5)
        assert refused.stdout == ""
        assert "another simulation uses these devices" in refused.stderr
    assert try_elsewhere(10, 10).stdout == "held\n"


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreUnavailable, match="--state-dir"),
        limits.held(tmp_path / "file" / "x", 0, 1),
    ):
        pass
