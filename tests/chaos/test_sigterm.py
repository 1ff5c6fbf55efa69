"""An agent that is told to end does so within its unit's time, whatever its job is doing; the job
goes on after the next start, and each trial is stored once."""

import hashlib
import signal
import time

import pytest

import eachphase
from behaviour import Records, jobs, started_by
from eachphase import COOL, HOT, phased_fleet
from engines import smollm2
from fakes.fake_hub import FakeHub
from fakes.fake_llama_server import write_llama_server
from servers import wait_for

pytestmark = pytest.mark.chaos

REPETITIONS = 6
PLANNED = REPETITIONS + 1


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, hub):
    """One fleet for all of these tests: each leaves the device as it found it."""
    with phased_fleet(tmp_path_factory.mktemp("sigterm"), hub) as made:
        yield made


def submit(fleet, **changes):
    return eachphase.submit(fleet, backend="llama_server", repetitions=REPETITIONS, **changes)


def end_agent(fleet):
    """Stop it as systemd would; what it had started must be gone, too."""
    begun_s = time.monotonic()
    assert fleet.kill("pi-sim", signal.SIGTERM) == 0
    assert time.monotonic() - begun_s < 30, "the unit's TimeoutStopSec is 45 s"
    log = fleet.log("pi-sim")
    assert "Traceback" not in log, log[-3000:]


def assert_goes_on(fleet, campaign_id):
    fleet.start_agent("pi-sim", fleet.toml)
    assert fleet.wait_for_end(campaign_id, 60) == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, PLANNED)
    wait_for(lambda: started_by(fleet) == {}, 15, "the end of all that the agent had started")


def engine_runs(fleet):
    return any(
        "fake_llama_server" in line and "--port" in line for line in started_by(fleet).values()
    )


def begin(fleet, fault, **changes):
    """Submit a job whose engine has a fault, and wait until that engine runs."""
    write_llama_server(fleet.server, fault)
    campaign_id = submit(fleet, **changes)
    wait_for(lambda: engine_runs(fleet), 30, "the engine")
    return campaign_id


def another_model(more_bytes):
    """A file of which the store has no copy by another name."""
    return smollm2().read_bytes() + bytes(more_bytes)


def test_while_the_model_is_downloaded(fleet, hub):
    path = "/o/r/resolve/main/slow.gguf"
    content = another_model(1)
    hub.serve(path, content, piece_pause_s=0.2)
    digest = hashlib.sha256(content).hexdigest()
    campaign_id = submit(fleet, ref="hf://o/r/slow.gguf", model={"sha256": digest})
    wait_for(lambda: list(fleet.models.glob("slow*.part")), 20, "the download")
    time.sleep(1)
    end_agent(fleet)
    (part,) = fleet.models.glob("slow*.part")
    assert part.stat().st_size > 0, "what came is kept"
    hub.serve(path, content)
    assert_goes_on(fleet, campaign_id)
    assert hub.requests[-1][1] is not None, "it went on in the middle of the file"


def test_while_the_server_of_the_model_says_nothing(fleet, hub):
    path = "/o/r/resolve/main/silent.gguf"
    content = another_model(2)
    hub.serve(path, content, piece_pause_s=30)
    digest = hashlib.sha256(content).hexdigest()
    campaign_id = submit(fleet, ref="hf://o/r/silent.gguf", model={"sha256": digest})
    wait_for(lambda: path in [asked for asked, _ in hub.requests], 20, "the download")
    end_agent(fleet)
    hub.serve(path, content)
    assert_goes_on(fleet, campaign_id)


def test_while_the_model_is_converted(fleet):
    campaign_id = submit(fleet, matrix={"quantization": ["Q5_1"]})

    def converts():
        return any("fleetmark_agent.models" in line for line in started_by(fleet).values())

    wait_for(converts, 20, "the conversion")
    end_agent(fleet)
    assert list(fleet.models.glob("*Q5_1*")) == []
    fleet.start_agent("pi-sim", fleet.toml)
    wait_for(converts, 20, "the conversion, again")
    assert [str(job.state) for job in jobs(fleet, campaign_id)] == ["QUEUED"]
    assert fleet.cli("campaign", "cancel", campaign_id).returncode == 0
    assert fleet.wait_for_end(campaign_id, 20) == "CANCELED"


def test_while_the_model_is_loaded(fleet):
    campaign_id = begin(fleet, "never ready")
    end_agent(fleet)
    write_llama_server(fleet.server)
    assert_goes_on(fleet, campaign_id)


def test_while_the_prompt_is_evaluated_and_the_broker_is_away(fleet):
    campaign_id = begin(fleet, "never answers")
    wait_for(lambda: len(Records(fleet, campaign_id).loads) == 1, 20, "the load")
    fleet.broker.kill()
    end_agent(fleet)
    fleet.broker.start()
    write_llama_server(fleet.server)
    assert_goes_on(fleet, campaign_id)


def test_in_the_middle_of_an_answer_of_an_engine_that_hears_no_signal(fleet):
    campaign_id = begin(fleet, "hangs in the middle")
    wait_for(lambda: len(Records(fleet, campaign_id).loads) == 1, 20, "the load")
    time.sleep(0.5)
    end_agent(fleet)
    assert not engine_runs(fleet)
    write_llama_server(fleet.server)
    assert_goes_on(fleet, campaign_id)


def test_at_the_quiet_gate(fleet):
    fleet.sysfs.zone(0, "cpu-thermal", HOT)
    gate = {"cpu_percent_max": 100, "temperature_c_max": 60, "timeout_s": 600}
    campaign_id = submit(fleet, quiet_gate=gate)
    wait_for(lambda: str(jobs(fleet, campaign_id)[0].state) == "IN_PROGRESS", 30, "the job")
    end_agent(fleet)
    fleet.sysfs.zone(0, "cpu-thermal", COOL)
    assert_goes_on(fleet, campaign_id)


def test_as_it_cools_down_between_two_trials_and_the_broker_hangs(fleet):
    """What was measured waits on the device; a broker that answers nothing holds nobody up."""
    cool_down = {"temperature_c": 60, "before": "repetition", "timeout_s": 600}
    fleet.sysfs.zone(0, "cpu-thermal", HOT)
    campaign_id = submit(fleet, cool_down=cool_down)
    # Warm-ups are not waited for.
    wait_for(lambda: fleet.stored_trials(campaign_id) == 1, 30, "the warm-up")
    fleet.broker.signal(signal.SIGSTOP)
    try:
        fleet.sysfs.zone(0, "cpu-thermal", COOL)
        time.sleep(1.5)
        end_agent(fleet)
    finally:
        fleet.broker.signal(signal.SIGCONT)
    assert_goes_on(fleet, campaign_id)
