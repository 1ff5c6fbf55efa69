"""Prompts of files of their own, written into the text that schedules and campaigns keep."""

import pytest

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN
from fleetmark_collector.campaigns import selfcontained
from fleetmark_collector.campaigns.newcomers import inlined_text
from fleetmark_collector.campaigns.schedules import ScheduleStore
from fleetmark_collector.campaigns.selfcontained import load_text
from fleetmark_protocol.errors import ConfigError

WEEKLY = CAMPAIGN + 'schedule: {cron: "0 2 * * mon", time_zone: Asia/Tokyo}\n'


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    made.add_device("pi-1")
    return made


AWKWARD = [
    "? what is it",
    ": a colon",
    "- a dash",
    "# a hash",
    "a, b",
    "[x",
    "é \t tab",
    "yes",
    "1",
]


@pytest.mark.parametrize("flow", [True, False])
def test_prompts_are_kept_as_they_are_however_the_file_is_written(cli, flow):
    prompts = cli.directory / "prompts.txt"
    prompts.write_text("\n".join(AWKWARD))
    head = WEEKLY.partition("workloads:")[0]
    if flow:
        text = f"{head}workloads: [{{name: one, kind: multi, prompts_file: prompts.txt}}]\n"
    else:
        text = f"{head}workloads:\n  - name: one\n    kind: multi\n    prompts_file: prompts.txt\n"
    text += WEEKLY[WEEKLY.index("schedule:") :]
    cli.file.write_text(text.replace("all: true", "all: true, selection: continuous"))
    for command in ("schedule", "run"):
        done = cli(command, str(cli.file), *(["--detach"] * (command == "run")))
        assert done.exit_code == 0, done.output
    store = cli.store()
    (campaign,) = store.campaigns()
    kept = inlined_text(store.file, campaign.campaign_id)
    store.close()
    schedules = ScheduleStore(cli.data_dir / "state.db")
    assert kept == schedules.get("sizes").file_text
    schedules.close()
    assert load_text(kept, cli.file).cells[0].workloads[0].prompts == tuple(AWKWARD)


def test_prompts_that_change_while_they_are_kept_are_told(cli, monkeypatch):
    (cli.directory / "prompts.txt").write_text("hello\n")
    single = "- {name: one, kind: single, prompt: hello, warmup: 1, repetitions: 2}"
    cli.file.write_text(
        WEEKLY.replace(single, "- {name: one, kind: multi, prompts_file: prompts.txt}")
    )
    monkeypatch.setattr(selfcontained, "read_prompts", lambda _: ("another",))
    done = cli("schedule", str(cli.file))
    assert isinstance(done.exception, ConfigError)
    assert "asks something else" in done.exception.message
