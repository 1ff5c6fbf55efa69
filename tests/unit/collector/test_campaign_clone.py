"""The file of an earlier campaign given out again: the same, or with changes that are checked."""

from contextlib import closing

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign
from fleetmark_collector.campaigns.clone import checked, clone_text, read_change, write_new
from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_protocol.errors import ConfigError

TEXT = f"# Why this was measured\n{CAMPAIGN}  # and how\n"
FROM_FILE = CAMPAIGN.replace("kind: single, prompt: hello", "kind: multi, prompts_file: p.txt")


def kept(tmp_path, text=TEXT):
    campaign = make_campaign(tmp_path, text)
    store = CampaignStore(tmp_path / "state.db")
    store.create(campaign, make_plan(campaign, "c1", [FakeDevice("pi-1")]))
    return closing(store)


def test_without_changes_it_is_the_same_to_the_byte(tmp_path):
    with kept(tmp_path) as store:
        assert clone_text(store, "c1") == TEXT


def test_changes_leave_everything_else_as_it_was_comments_included(tmp_path):
    changes = [("name", "again"), ("targets", {"tags": ["pi4"]}), ("seed", 3)]
    changes += [("workloads[0].repetitions", 5), ("timeouts.trial_s", 10)]
    with kept(tmp_path) as store:
        text = clone_text(store, "c1", changes)
    assert text.startswith("# Why this was measured\n")
    assert "# and how" in text
    file = tmp_path / "again.yaml"
    file.write_text(text)
    campaign = load_campaign(file)
    assert (campaign.name, campaign.targets.tags, campaign.seed) == ("again", ("pi4",), 3)
    assert campaign.cells[0].workloads[0].repetitions == 5
    assert campaign.timeouts.trial_s == 10


def test_prompts_are_those_that_were_asked_whatever_became_of_their_file(tmp_path):
    (tmp_path / "p.txt").write_text("first\nsecond: with a colon\n# third\n")
    with kept(tmp_path, FROM_FILE) as store:
        (tmp_path / "p.txt").unlink()
        text = clone_text(store, "c1")
    file = tmp_path / "again.yaml"
    file.write_text(text)
    (workload,) = load_campaign(file).cells[0].workloads
    assert workload.prompts == ("first", "second: with a colon", "# third")


def test_a_campaign_that_is_not_there_is_told_with_the_nearest(tmp_path):
    with kept(tmp_path) as store, pytest.raises(ConfigError, match="did you mean 'c1'"):
        clone_text(store, "c11")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("workloads[3].repetitions=5", r"the file has no \[3\] there"),
        ("workloads.repetitions=5", "no keys there, but a list or a plain value"),
        ("name.x=5", "no keys there, but a list or a plain value"),
        ("targest[0]=5", r"no 'targest' there \(did you mean 'targets'\?\)"),
        ("workloads[3]=5", "the file has no such place"),
        ("name", "not of the form KEY=VALUE"),
        ("=3", "not of the form KEY=VALUE"),
        ("a..b=3", "not of the form KEY=VALUE"),
        ("name=[", "the value is not YAML"),
    ],
)
def test_a_change_that_leads_nowhere_is_the_users_mistake(tmp_path, change, said):
    with kept(tmp_path) as store, pytest.raises(ConfigError, match=said):
        clone_text(store, "c1", [read_change(change)])


def test_values_are_yaml():
    assert read_change("a.b[2]=[x, 1]") == ("a.b[2]", ["x", 1])
    assert read_change("a=x = y") == ("a", "x = y")


def test_a_changed_file_that_is_none_any_more_is_told_by_line(tmp_path):
    with kept(tmp_path) as store:
        text = clone_text(store, "c1", [("order", "sideways")])
    with pytest.raises(ConfigError, match=r"with these changes, line \d+:\d+: order: Input should"):
        checked(text)


def test_no_file_is_ever_overwritten(tmp_path):
    file = tmp_path / "there.yaml"
    write_new(file, "a")
    with pytest.raises(ConfigError, match="is there already"):
        write_new(file, "b")
    assert file.read_text() == "a"
    with pytest.raises(ConfigError, match="No such file or directory"):
        write_new(tmp_path / "nowhere" / "x", "b")


KINDS = CAMPAIGN.replace(
    "  - {name: one, kind: single, prompt: hello, warmup: 1, repetitions: 2}\n",
    "  - {name: crowd, kind: concurrency, prompts_file: p.txt, clients: [1, 2], repetitions: 2}\n"
    "  - {name: heat, kind: soak, prompts_file: p.txt, duration_s: 60}\n"
    "  - {name: sweep, kind: context_sweep, prompt_tokens: [16, 32]}\n"
    "order: interleaved\nblocks: 2\ncool_down: {temperature_c: 60}\n",
)


def test_prompts_of_every_kind_are_written_out_and_the_clone_asks_the_same(tmp_path):
    (tmp_path / "p.txt").write_text("first\nsecond\n")
    with kept(tmp_path, KINDS) as store:
        text = clone_text(store, "c1", [("name", "again")])
        before = store.spec(store.jobs("c1")[-1].job_id)
    (tmp_path / "p.txt").unlink()
    assert "prompts_file" not in text
    assert text.count('prompts: ["first", "second"]') == 2
    file = tmp_path / "again.yaml"
    file.write_text(text)
    plan = make_plan(load_campaign(file), "c2", [FakeDevice("pi-1")])
    assert plan.jobs[-1].spec.workloads == before.workloads


def test_repetitions_may_become_adaptive_and_an_order_interleaved(tmp_path):
    often = read_change("workloads[0].repetitions={half_width_percent: 5, max: 20}")
    with kept(tmp_path) as store:
        text = clone_text(store, "c1", [often, read_change("order=interleaved")])
    file = tmp_path / "again.yaml"
    file.write_text(text)
    campaign = load_campaign(file)
    (workload,) = campaign.cells[0].workloads
    assert (workload.repetitions, workload.adaptive.half_width_percent) == (20, 5)
    assert campaign.order == "interleaved"
