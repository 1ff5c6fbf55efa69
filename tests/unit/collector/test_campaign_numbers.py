"""Numbers and names of a campaign file that no part may stumble over, however odd they are."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN, START_NS, FakeDevice, S, make_campaign
from fleetmark_collector.campaigns.bounds import MAX_S, MIN_PER_MINUTE
from fleetmark_collector.campaigns.file import campaign_json_schema
from fleetmark_collector.campaigns.picture import draw
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.retries import Retries
from fleetmark_collector.campaigns.rollout import Rollout
from fleetmark_collector.campaigns.situation import clock
from fleetmark_collector.campaigns.view import gather
from fleetmark_collector.campaigns.watch import changes
from fleetmark_collector.campaigns.wording import share
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import Hardware

JOINING = CAMPAIGN.replace("all: true", "all: true, selection: continuous")


@pytest.mark.parametrize(
    "number",
    ["0x" + "f" * 4000, "0o" + "7" * 6000, "1" + "0" * 400, "1" * 5000, "-0x" + "f" * 4000],
)
def test_a_number_that_python_does_not_write_out_is_told(tmp_path, number):
    with pytest.raises(
        ConfigError, match=r"campaign.yaml:\d+:7: seed: .*(beyond|cannot|can be read)"
    ):
        make_campaign(tmp_path, f"{CAMPAIGN}seed: {number}\n")


def test_the_longest_times_are_kept_in_nanoseconds():
    rules = Retries(
        max=100, backoff_s=MAX_S, backoff_factor=100, backoff_max_s=MAX_S, on=["FAILED"]
    )
    assert START_NS + rules.wait_ns(100, "c1.pi.001.r100") < 2**63


def test_the_lowest_rate_sends_a_first_job_and_tells_when_the_next_is_due():
    rollout = Rollout(jobs_per_minute=MIN_PER_MINUTE)
    assert rollout.due([], 0, START_NS) == 1
    assert rollout.due([START_NS], 0, START_NS + S) == 0
    assert rollout.next_ns([START_NS], 0, START_NS + S) == START_NS + 60_000_000 * S


def test_every_time_of_the_file_has_a_longest_one():
    found = []

    def walk(node, key=""):
        if isinstance(node, dict):
            if key.endswith("_s"):
                options = [*node.get("anyOf", ()), node]
                found.append((key, any("maximum" in one for one in options)))
            for name, value in node.items():
                walk(value, name)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(campaign_json_schema())
    assert len(found) > 10
    assert {key for key, bounded in found if not bounded} == set()


def test_a_code_that_an_older_version_took_does_no_harm():
    kept = '{"retries": {"max": 1, "on": ["CANCELED", "FAILED"]}}'
    assert Policy.model_validate_json(kept).retries.on == ("CANCELED", "FAILED")


@pytest.mark.parametrize("time_ns", [10**21, 10**30, 10**400])
def test_a_time_beyond_the_calendar_is_shown_as_such(time_ns):
    assert clock(time_ns, START_NS) == "a time beyond the calendar"


def test_a_time_limit_that_an_older_version_took_is_shown(make_world):
    world = make_world()
    world.submit(text=JOINING)
    store = world.store()
    with store.file.transaction() as db:
        db.execute("UPDATE campaigns SET campaign_s = 1e12")
    view = gather(store, world.reader, world, "c1", world.now_ns)
    store.close()
    (line,) = (one for one in changes(None, view, True) if "take part" in one)
    assert re.search(r"until 20\d\d-", line)


# --- names of files ----------------------------------------------------------------------------


def asking(name: str) -> str:
    return CAMPAIGN.replace("kind: single, prompt: hello", f"kind: multi, prompts_file: {name}")


@pytest.mark.parametrize("name", ["p" * 300, "none/p.txt", "campaign.yaml/p.txt", '"a\\0b"', '"."'])
def test_a_prompts_file_that_cannot_be_looked_at_is_told_with_its_place(tmp_path, name):
    with pytest.raises(ConfigError, match=r"campaign.yaml:\d+:\d+: workloads\[0\].prompts_file: "):
        make_campaign(tmp_path, asking(name))


def test_so_is_one_in_a_directory_that_one_may_not_enter(tmp_path, monkeypatch):
    real = Path.stat

    def closed(file, **how):
        if file.name == "p.txt":
            raise PermissionError(13, "Permission denied")
        return real(file, **how)

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(ConfigError, match=r"prompts_file: .*p.txt: Permission denied"):
        make_campaign(tmp_path, asking("p.txt"))


# --- what is said of it ------------------------------------------------------------------------


def test_a_campaign_that_waits_for_devices_has_no_percentage(make_world):
    world = make_world()
    world.submit(text=JOINING)
    store = world.store()
    view = gather(store, world.reader, world, "c1", world.now_ns)
    console = Console(file=io.StringIO(), width=120)
    console.print(draw(view, True))
    assert share(view) == 0
    assert "no trials yet" in console.file.getvalue()
    assert "%" not in console.file.getvalue().replace("CPU %", "").replace("RAM %", "")
    world.devices.append(FakeDevice("pi-1"))
    world.dispatcher.tick()
    later = gather(store, world.reader, world, "c1", world.now_ns)
    store.close()
    assert "pi-1 has joined" in changes(view, later, True)
    console.print(draw(later, True))
    assert "0%, 0 of" in console.file.getvalue()


def test_a_note_on_a_time_zone_is_told_once(tmp_path):
    cli = Cli(tmp_path)
    hardware = Hardware(arch="aarch64", os="Linux", kernel="6", hostname="pi")
    cli.add_device("pi-1", hardware=hardware)
    cli.file.write_text(CAMPAIGN + "windows: {times: 00:00-24:00}\n")
    done = cli("plan", str(cli.file))
    assert done.exit_code == 0, done.output
    assert done.output.count("does not say its time zone") == 1
