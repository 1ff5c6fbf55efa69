"""How a campaign becomes jobs for the devices there are."""

import pytest

from fakes.fake_fleet import CAMPAIGN, START_NS, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.cells import count_trials
from fleetmark_collector.campaigns.plan import make_plan, new_campaign_id
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import is_name
from fleetmark_protocol.messages import BackendInfo, CoolDown
from fleetmark_protocol.workloads import Workload


def plan_of(tmp_path, devices, *changes: tuple[str, str]):
    text = CAMPAIGN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return make_plan(make_campaign(tmp_path, text), "c1", devices)


def cells(plan, device="pi-1"):
    return [str(job.cell) for job in plan.jobs if job.device == device]


LISTED = ("version: 1", "version: 1\norder: listed")


def test_every_combination_is_a_job_on_every_device(tmp_path):
    plan = plan_of(tmp_path, [FakeDevice("pi-1"), FakeDevice("pi-2")], LISTED)
    expected = [
        "xllamacpp tiny Q8_0 threads=1",
        "xllamacpp tiny Q8_0 threads=2",
        "xllamacpp tiny Q4_0 threads=1",
        "xllamacpp tiny Q4_0 threads=2",
    ]
    assert cells(plan, "pi-1") == cells(plan, "pi-2") == expected
    assert [job.spec.job_id for job in plan.jobs][:2] == ["c1.pi-1.001", "c1.pi-1.002"]
    assert plan.trials == 8 * 3
    assert plan.problems == ()


def test_a_job_carries_the_cell_as_options_and_as_labels(tmp_path):
    spec = plan_of(tmp_path, [FakeDevice("pi-1")], LISTED).jobs[1].spec
    assert spec.options.threads == 2
    assert spec.labels == {"threads": 2}
    assert spec.model.quantization == "Q8_0"


def test_the_same_seed_gives_the_same_order_and_another_seed_another(tmp_path):
    devices = [FakeDevice("pi-1")]
    many = ("threads: [1, 2]", "threads: [1, 2, 3, 4, 5, 6, 7, 8]")
    first, again = plan_of(tmp_path, devices, many), plan_of(tmp_path, devices, many)
    other = plan_of(tmp_path, devices, many, ("version: 1", "version: 1\nseed: 7"))
    listed = plan_of(tmp_path, devices, many, LISTED)
    assert first == again
    assert cells(first) != cells(other)
    assert sorted(cells(first)) == sorted(cells(other)) == sorted(cells(listed))


def test_each_device_has_a_shuffle_of_its_own_whatever_order_devices_come_in(tmp_path):
    devices = [FakeDevice("pi-1"), FakeDevice("pi-2")]
    many = ("threads: [1, 2]", "threads: [1, 2, 3, 4, 5, 6, 7, 8]")
    plan = plan_of(tmp_path, devices, many)
    assert cells(plan, "pi-1") != cells(plan, "pi-2")
    assert plan == plan_of(tmp_path, devices[::-1], many)


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ("{devices: [pi-1]}", ["pi-1"]),
        ("{tags: [hot]}", ["pi-2"]),
        ("{tags: [hot, cold]}", ["pi-2", "pi-3"]),
        ("{fleets: [lab]}", ["pi-1", "pi-2"]),
        ("{devices: [pi-1], tags: [cold]}", ["pi-1", "pi-3"]),
        ("{all: true}", ["pi-1", "pi-2", "pi-3"]),
    ],
)
def test_a_device_takes_part_if_any_key_names_it(tmp_path, targets, chosen):
    devices = [
        FakeDevice("pi-1", inventory=None),
        FakeDevice("pi-2", inventory=make_inventory(tags=("hot", "small"))),
        FakeDevice("pi-3", fleet="field", inventory=make_inventory(tags=("cold",))),
    ]
    plan = plan_of(tmp_path, devices, ("{all: true}", targets))
    assert sorted({job.device for job in plan.jobs}) == chosen
    assert plan.problems == ()


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ("{devices: [pi-2]}", "targets.devices[0]: no device 'pi-2' (did you mean 'pi-1'?)"),
        ("{tags: [hots]}", "targets.tags[0]: no tag 'hots' (did you mean 'hot'?)"),
        ("{fleets: [zoo]}", "targets.fleets[0]: no fleet 'zoo' (known: lab)"),
        ("{devices: [pi-1, pi-9]}", "no device 'pi-9'"),
    ],
)
def test_a_target_that_matches_nothing_is_a_problem_with_a_suggestion(tmp_path, targets, problem):
    devices = [FakeDevice("pi-1", inventory=make_inventory(tags=("hot",)))]
    plan = plan_of(tmp_path, devices, ("{all: true}", targets))
    assert problem in plan.problems[0]
    with pytest.raises(ConfigError):
        plan.check()


def test_without_devices_the_plan_says_how_to_get_some(tmp_path):
    plan = plan_of(tmp_path, [])
    assert "knows no devices yet" in plan.problems[0]


def test_two_devices_of_one_id_in_two_fleets_get_jobs_of_different_ids(tmp_path):
    plan = plan_of(tmp_path, [FakeDevice("pi"), FakeDevice("pi", fleet="field")])
    ids = [job.spec.job_id for job in plan.jobs]
    assert len(ids) == len(set(ids)) == 8


MISSING = BackendInfo(name="xllamacpp", available=False, reason="not installed")


@pytest.mark.parametrize(
    ("inventory", "reason"),
    [
        (make_inventory(backends=(MISSING,)), "not available there: not installed"),
        (make_inventory(backends=()), "backend 'xllamacpp' is not known there"),
        (make_inventory(allowed_backends=("llama_cpp",)), "not allowed by the device's owner"),
    ],
)
def test_a_backend_that_a_device_lacks_is_left_out_or_sent_to_be_rejected(
    tmp_path, inventory, reason
):
    devices = [FakeDevice("pi-1", inventory=inventory), FakeDevice("pi-2")]
    sent = plan_of(tmp_path, devices)
    assert {reason in str(job.refusal) for job in sent.jobs if job.device == "pi-1"} == {True}
    assert {job.refusal for job in sent.jobs if job.device == "pi-2"} == {None}
    skipped = plan_of(tmp_path, devices, ("version: 1", "version: 1\nunavailable: skip"))
    assert {job.device for job in skipped.jobs} == {"pi-2"}
    assert len(skipped.left_out) == 4
    assert reason in skipped.left_out[0].reason


def test_leaving_everything_out_is_a_problem(tmp_path):
    devices = [FakeDevice("pi-1", inventory=make_inventory(backends=(MISSING,)))]
    plan = plan_of(tmp_path, devices, ("version: 1", "version: 1\nunavailable: skip"))
    assert "nothing left to run" in plan.problems[0]


def test_a_source_that_the_owner_does_not_allow_is_expected_to_be_refused(tmp_path):
    devices = [FakeDevice("pi-1", inventory=make_inventory(allowed_sources=("hf://",)))]
    plan = plan_of(tmp_path, devices)
    assert "source not allowed" in str(plan.jobs[0].refusal)


def test_devices_offline_or_silent_and_files_without_digest_are_noted(tmp_path):
    devices = [FakeDevice("pi-1", online=False), FakeDevice("pi-2", inventory=None)]
    notes = plan_of(tmp_path, devices, ("path:tiny.gguf", "https://h/tiny.gguf")).notes
    assert any("pi-1 is offline" in note for note in notes)
    assert any("pi-2 has not said what it has" in note for note in notes)
    assert any("no sha256" in note for note in notes)


def test_the_longest_names_still_make_lawful_ids(tmp_path):
    campaign_id = new_campaign_id("n" * 47, START_NS)
    assert is_name(campaign_id)
    campaign = make_campaign(tmp_path)
    plan = make_plan(campaign, campaign_id, [FakeDevice("d" * 63)])
    assert plan.problems == ()


def test_a_campaigns_id_tells_when_it_began():
    assert new_campaign_id("sizes", 1_790_000_000 * 10**9) == "sizes-20260921-141320"


def test_trials_are_counted_as_devices_make_them():
    single = Workload(name="a", kind="single", prompts=("x",), warmup=1, repetitions=5)
    multi = Workload(name="b", kind="multi", prompts=("x", "y", "z"), warmup=2, repetitions=4)
    assert count_trials([single, multi]) == 6 + (2 + 12)


def test_a_job_carries_the_price_of_its_device_and_how_cool_it_must_be(tmp_path):
    more = "cost: {usd_per_hour: {hot: 0.5, pi-2: 0.25}}\ncool_down: {temperature_c: 55}\n"
    devices = [
        FakeDevice("pi-1", inventory=make_inventory(tags=("hot",))),
        FakeDevice("pi-2", inventory=make_inventory(tags=("hot",))),
        FakeDevice("pi-3"),
    ]
    plan = plan_of(tmp_path, devices, ("version: 1", f"version: 1\n{more}"))
    prices = {job.device: job.spec.usd_per_hour for job in plan.jobs}
    assert prices == {"pi-1": 0.5, "pi-2": 0.25, "pi-3": None}
    assert {job.spec.cool_down for job in plan.jobs} == {CoolDown(temperature_c=55)}
    assert plan_of(tmp_path, devices).jobs[0].spec.cool_down is None
