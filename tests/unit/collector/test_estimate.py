"""How long a plan takes, on what that is founded, and what is said where it goes too far."""

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.estimate import WIDTH, Basis, estimate_plan
from fleetmark_collector.campaigns.history import History
from fleetmark_collector.campaigns.pace import Pace
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_protocol.messages import BackendInfo, Hardware, ModelInfo

SHA = "ab" * 32
PI4 = Hardware(
    arch="aarch64",
    os="Linux",
    kernel="6",
    hostname="pi",
    board="Raspberry Pi 4 Model B Rev 1.4",
    cpu_model="Cortex-A72",
    cores_physical=4,
    cores_logical=4,
    mem_total_bytes=4 * 10**9,
)
ONE_CELL = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
CELL = "xllamacpp tiny Q8_0 threads=1"
PACE = Pace(start_s=4.0, load_s=2.0, gap_s=0.5, prefill_s=0.1, decode_s=0.2, jobs=2, trials=16)


def device(name, hardware=PI4, **more):
    return FakeDevice(name, inventory=make_inventory(hardware=hardware, **more))


def estimate(tmp_path, devices, history=None, text=ONE_CELL):
    campaign = make_campaign(tmp_path, text)
    plan = make_plan(campaign, "c1", devices)
    assert plan.problems == ()
    return estimate_plan(campaign, plan, devices, history or History())


def only_job(made):
    ((job,),) = (one.jobs for one in made.devices)
    return job


# One warm-up and two repetitions of a prompt of five characters, 64 tokens each.
PROMPT_TOKENS = 1 + 5 / 4
EXPECTED_S = 2 + 4 + 2 + 3 * (PROMPT_TOKENS * 0.1 + 64 * 0.2) + 2 * 0.5


def test_the_same_cell_on_the_same_device_is_the_best_basis(tmp_path):
    history = History({("lab", "pi", CELL): PACE, ("lab", "pi-2", CELL): PACE})
    job = only_job(estimate(tmp_path, [device("pi")], history))
    assert job.basis is Basis.SAME_DEVICE
    assert job.because == "16 trials of 2 jobs on pi"
    assert job.seconds.likely == pytest.approx(EXPECTED_S)
    assert job.seconds.low == pytest.approx(EXPECTED_S / 1.25)
    assert job.seconds.high == pytest.approx(EXPECTED_S * 1.25)


def test_a_device_of_the_same_kind_comes_next_whatever_its_revision(tmp_path):
    other = PI4.model_copy(update={"board": "Raspberry Pi 4 Model B Rev 1.1", "hostname": "x"})
    devices = [device("pi"), device("pi-2", other)]
    history = History({("lab", "pi-2", CELL): PACE})
    made = estimate(tmp_path, devices, history, ONE_CELL.replace("all: true", "devices: [pi]"))
    job = only_job(made)
    assert job.basis is Basis.SAME_KIND
    assert job.because.endswith("on pi-2")
    assert job.seconds.high == pytest.approx(EXPECTED_S * WIDTH[Basis.SAME_KIND])


@pytest.mark.parametrize(
    "change", [{"board": "Raspberry Pi 5 Model B"}, {"cores_logical": 2}, {"cpu_model": "other"}]
)
def test_a_device_of_another_kind_does_not_count(tmp_path, change):
    devices = [device("pi"), device("pi-2", PI4.model_copy(update=change))]
    history = History({("lab", "pi-2", CELL): PACE})
    text = ONE_CELL.replace("all: true", "devices: [pi]").replace("tiny.gguf", "tiny-135m.gguf")
    assert only_job(estimate(tmp_path, devices, history, text)).basis is Basis.MODEL_SIZE


def test_what_varied_more_makes_the_estimate_wider(tmp_path):
    wide = Pace(**{**PACE.__dict__, "low": 0.5, "high": 3.0})
    job = only_job(estimate(tmp_path, [device("pi")], History({("lab", "pi", CELL): wide})))
    assert job.seconds.low == pytest.approx(EXPECTED_S * 0.5)
    assert job.seconds.high == pytest.approx(EXPECTED_S * 3)


def test_a_prompt_that_was_counted_is_not_guessed(tmp_path):
    import hashlib

    digest = hashlib.sha256(b"hello").hexdigest()
    history = History({("lab", "pi", CELL): PACE}, {("tiny", digest): 1000})
    job = only_job(estimate(tmp_path, [device("pi")], history))
    assert job.seconds.likely == pytest.approx(EXPECTED_S + 3 * (1000 - PROMPT_TOKENS) * 0.1)


def test_each_cold_trial_starts_and_loads_anew(tmp_path):
    text = ONE_CELL.replace("{threads: 1}", "{threads: 1, start: cold}")
    history = History({("lab", "pi", f"{CELL} start=cold"): PACE})
    job = only_job(estimate(tmp_path, [device("pi")], history, text))
    assert job.seconds.likely == pytest.approx(EXPECTED_S + 2 * (4 + 2) - 2 * 0.5)


def info(**more):
    known = {
        "name": "tiny.gguf",
        "sha256": SHA,
        "bytes": 1_000_000_000,
        "parameters": 1_000_000_000,
        "quantization": "Q8_0",
        "bits_per_weight": 8.0,
    }
    return ModelInfo(**{**known, **more})


def by_size(tmp_path, hardware=PI4, model=None, text=ONE_CELL):
    models = () if model is None else (model,)
    job = only_job(estimate(tmp_path, [device("pi", hardware, models=models)], text=text))
    assert job.basis is Basis.MODEL_SIZE
    assert job.seconds.high / job.seconds.low == pytest.approx(WIDTH[Basis.MODEL_SIZE] ** 2)
    return job


def test_without_any_run_the_size_of_the_model_tells(tmp_path):
    small = by_size(tmp_path, model=info(bytes=100_000_000, parameters=100_000_000))
    large = by_size(tmp_path, model=info())
    assert large.because == "1000 MB of weights, as a device has it"
    assert large.seconds.likely > 4 * small.seconds.likely
    pi3 = PI4.model_copy(update={"board": "Raspberry Pi 3 Model B"})
    server = PI4.model_copy(update={"board": "Amazon EC2 t3.large", "arch": "x86_64"})
    assert by_size(tmp_path, pi3, info()).seconds.likely > large.seconds.likely
    assert by_size(tmp_path, server, info()).seconds.likely < large.seconds.likely


def test_a_quantization_to_be_derived_is_sized_by_its_name(tmp_path):
    half = by_size(tmp_path, model=info(quantization="F16", bytes=2_000_000_000))
    assert half.because == "1062 MB of weights, as a device has it"


def test_floating_point_is_sized_as_it_is_computed_in(tmp_path):
    text = ONE_CELL.replace("{threads: 1}", "{dtype: bf16}")
    assert by_size(tmp_path, model=info(), text=text).because.startswith("2000 MB")


def test_where_no_device_has_the_model_its_name_tells(tmp_path):
    text = ONE_CELL.replace("name: tiny", "name: llama-7b")
    assert by_size(tmp_path, text=text).because == "7438 MB of weights, going by its name"


@pytest.mark.parametrize(
    ("devices", "because"),
    [
        ([device("pi")], "nothing tells how large tiny is"),
        ([FakeDevice("pi", inventory=None)], "the device has not said what it is"),
    ],
)
def test_what_nobody_knows_has_no_estimate_and_that_is_said(tmp_path, devices, because):
    made = estimate(tmp_path, devices)
    job = only_job(made)
    assert (job.basis, job.seconds) == (Basis.UNKNOWN, None)
    assert made.devices[0].unknown == 1
    note = f"no estimate for 1 job(s), {because}: they come on top, 7200 s each at most"
    assert note in made.notes


def test_what_is_refused_takes_no_time(tmp_path):
    made = estimate(tmp_path, [device("pi", backends=())])
    assert only_job(made).basis is Basis.REFUSED
    assert made.seconds.high == 0


def test_devices_work_side_by_side_but_agents_of_one_machine_in_turn(tmp_path):
    same = PI4.model_copy(update={"machine_id": "a"})
    other = PI4.model_copy(update={"machine_id": "b"})
    devices = [device("pi-1", same), device("pi-2", same), device("pi-3", other)]
    history = History({("lab", f"pi-{number}", CELL): PACE for number in (1, 2, 3)})
    made = estimate(tmp_path, devices, history)
    assert made.seconds.likely == pytest.approx(2 * EXPECTED_S)
    alone = estimate(tmp_path, devices[1:], history)
    assert alone.seconds.likely == pytest.approx(EXPECTED_S)


def priced(tmp_path, prices, tags=("pi4", "bench"), text=""):
    history = History({("lab", "pi", CELL): PACE})
    more = f"cost: {{usd_per_hour: {prices}}}\n{text}"
    return estimate(tmp_path, [device("pi", tags=tags)], history, ONE_CELL + more)


def test_a_price_by_tag_or_device_makes_a_cost(tmp_path):
    assert priced(tmp_path, "{pi4: 3.6}").usd.likely == pytest.approx(EXPECTED_S * 0.001)
    assert priced(tmp_path, "{pi4: 3.6, pi: 7.2}").usd.likely == pytest.approx(EXPECTED_S * 0.002)
    assert priced(tmp_path, "{pi4: 1, bench: 1}").usd.likely == pytest.approx(EXPECTED_S / 3600)


def test_tags_of_different_prices_are_a_mistake(tmp_path):
    campaign = make_campaign(tmp_path, ONE_CELL + "cost: {usd_per_hour: {pi4: 1, bench: 2}}\n")
    (problem,) = make_plan(campaign, "c1", [device("pi", tags=("pi4", "bench"))]).problems
    assert "cost.usd_per_hour: pi has tags of different prices (bench 2, pi4 1)" in problem
    assert ":11:" in problem


def test_devices_without_a_price_and_prices_without_a_device_are_told(tmp_path):
    made = priced(tmp_path, "{pi5: 1, bnech: 2, zzz: 3}")
    assert made.usd is None
    assert "no price for pi: they count as free" in made.notes
    assert any("'bnech' (did you mean 'bench'?)" in note for note in made.notes)
    assert any(note.endswith("tag or id 'zzz'") for note in made.notes)


def test_without_prices_there_is_no_cost(tmp_path):
    made = estimate(tmp_path, [device("pi")], History({("lab", "pi", CELL): PACE}))
    assert made.usd is None
    assert made.notes == ()


def test_going_beyond_a_limit_is_told_with_its_place(tmp_path):
    made = priced(tmp_path, "{pi4: 360}", text="limits: {duration_s: 40, cost_usd: 2}\n")
    assert [line.removeprefix(f"{tmp_path}/") for line in made.over] == [
        "campaign.yaml:12:22: limits.duration_s: would take about 48 s (38 to 60 s), more than "
        "40 s",
        "campaign.yaml:12:36: limits.cost_usd: would cost about 4.81 USD (3.85 to 6.01 USD), more "
        "than 2 USD",
    ]
    assert priced(tmp_path, "{pi4: 360}", text="limits: {duration_s: 50, cost_usd: 5}\n").over == ()


def test_time_limits_that_would_cut_it_short_are_told(tmp_path):
    text = ONE_CELL + "timeouts: {job_s: 20, campaign_s: 30}\n"
    notes = estimate(tmp_path, [device("pi")], History({("lab", "pi", CELL): PACE}), text).notes
    assert notes[0].startswith("1 job(s) would take longer than timeouts.job_s (20 s)")
    assert f"such as {CELL} on pi" in notes[0]
    assert "longer than timeouts.campaign_s (30 s)" in notes[1]


def test_weights_beyond_all_memory_are_refused_before_anything_is_sent(tmp_path):
    campaign = make_campaign(tmp_path, ONE_CELL)
    big = info(bytes=7_000_000_000, parameters=7_000_000_000)
    holder = device("ec2", PI4.model_copy(update={"mem_total_bytes": 64 * 10**9}), models=(big,))
    backends = (BackendInfo(name="xllamacpp", available=True),)
    plan = make_plan(campaign, "c1", [device("pi", backends=backends), holder])
    refusals = {job.device: job.refusal for job in plan.jobs}
    assert refusals["ec2"] is None
    assert refusals["pi"] == ("does not fit: the weights alone need 7.0 GB, the device has 4.0 GB")
