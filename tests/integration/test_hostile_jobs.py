"""A centre that means harm, over a real broker, to a real agent: it gets refusals, and no more.

What the agent and its children wrote to, connected to and executed is written down by Python's own
audit events (`fakes/watching`); the engine is a stand-in, for what it is given is what matters.
"""

import json
import os
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_llama_server import write_llama_server
from fakes.fake_model import write_llama, write_model
from fakes.fake_raw_server import FakeRawServer
from fleet import Fleet
from fleetmark_agent.limits import MAX_OPEN_JOBS
from hostilecentre import HostileCentre
from servers import Mosquitto, wait_for

pytestmark = pytest.mark.integration

OUTSIDE = "outside-of-the-store"
SHA = "ab" * 32
MAX_JOB_S = 8.0
WATCHING = Path(__file__).parents[1] / "fakes" / "watching"


class World:
    """One agent, its hub, a victim on another address of this machine, and what the agent did."""

    def __init__(self, directory: Path, broker: Mosquitto, hub: FakeHub, victim: FakeRawServer):
        self.directory, self.broker, self.hub, self.victim = directory, broker, hub, victim
        self.outside = directory / OUTSIDE
        self.models = directory / "models"
        self.temporary = directory / "tmp"
        self.watched = directory / "watched.jsonl"
        self.fleet = Fleet(directory, broker)
        self.number = 0

    def start(self) -> None:
        self._fill()
        server = self.directory / "server"
        server.mkdir()
        write_llama_server(server)
        toml = (
            f"[models]\ndir = '{self.models}'\nhf_endpoint = '{self.hub.base}'\n"
            "pypi_index = 'http://127.0.0.1:9/simple'\nquota_bytes = 30000000\n"
            f"[runner]\nmax_job_s = {MAX_JOB_S}\n"
            f"[engines.llama_server]\nexecutable = '{server / 'llama-server'}'\n"
        )
        more = {
            "PYTHONPATH": str(WATCHING),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_RETRIES": "0",
            "TMPDIR": str(self.temporary),
            "WATCH_FILE": str(self.watched),
            "WATCH_WORD": OUTSIDE,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in more.items():
                patch.setenv(name, value)
            self.fleet.start_agent("pi", toml)

    def _fill(self) -> None:
        self.outside.mkdir()
        self.temporary.mkdir()
        self.models.mkdir()
        write_model(self.outside / "secret.gguf")
        (self.outside / "dir").mkdir()
        (self.models / "link.gguf").symlink_to(self.outside / "secret.gguf")
        (self.models / "linkdir").symlink_to(self.outside / "dir")
        os.mkfifo(self.models / "pipe.gguf")
        write_model(self.models / "everybody.gguf").chmod(0o666)
        write_llama(self.models / "good.gguf")
        write_llama(self.models / "--rpc")
        self.hub.serve("/o/r/resolve/main/moved.gguf", location=self.at_victim("http"))
        self.hub.serve("/o/r/resolve/main/to-https.gguf", location=self.at_victim("https"))
        self.hub.serve("/o/r/resolve/main/file.gguf", location="file:///etc/passwd")
        self.hub.serve("/o/r/resolve/main/bomb.gguf", b"x", headers={"Content-Encoding": "gzip"})
        self.hub.serve("/o/r/resolve/main/huge.gguf", bytes(40_000_000))
        self.hub.serve("/o/r/resolve/main/wrong.gguf", b"GGUF" + bytes(100))

    def at_victim(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.2:{self.victim.port}/m.gguf"

    def job(self, model=None, workload=None, **changes) -> dict:
        self.number += 1
        work = {"name": "w", "kind": "single", "prompts": ["The sun"], "warmup": 0}
        return {
            "job_id": f"c.pi.{self.number:04d}",
            "campaign_id": "c",
            "backend": "llama_server",
            "model": {"name": "m", "ref": "path:good.gguf", **(model or {})},
            "options": {"threads": 1, "context_tokens": 256},
            "workloads": [{**work, "output_tokens": 3, "repetitions": 1, **(workload or {})}],
            "timeouts": {"job_s": MAX_JOB_S},
            "quiet_gate": {"cpu_percent_max": 100, "timeout_s": 0},
            **changes,
        }

    def seen(self, what: str) -> list:
        lines = self.watched.read_text("utf-8").splitlines()
        return [value for kind, value in map(json.loads, lines) if kind == what]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hostile")
    broker = Mosquitto(directory).start()
    with FakeHub() as hub, FakeRawServer(host="127.0.0.2") as victim:
        made = World(directory, broker, hub, victim)
        made.start()
        yield made
        made.fleet.close()
    broker.kill()


@pytest.fixture(scope="module")
def centre(world):
    with HostileCentre(world.broker.port, "pi") as made:
        yield made


def ref(text, sha256=SHA):
    return {"model": {"ref": text, **({"sha256": sha256} if sha256 else {})}}


def at(host):
    return lambda world: ref(f"https://{host}:{world.victim.port}/m.gguf")


OPTIONS = {"threads": 1, "context_tokens": 256}
MILLION = {"context_tokens": 1_048_576, "parallel": 256}
REJECTED = {
    "a path upwards": (ref("path:../../etc/passwd"), "CONFIG"),
    "an absolute path": (ref("path:/etc/passwd"), "CONFIG"),
    "an encoded path": (ref("path:%2e%2e/secret.gguf"), "CONFIG"),
    "a NUL": (ref("path:good.gguf\0.txt"), "CONTRACT"),
    "a very long path": (ref("path:" + "x" * 1000), "CONFIG"),
    "the store's own file": (ref("path:good.gguf.json"), "CONFIG"),
    "a link out": (ref("path:link.gguf", None), "MODEL_REJECTED"),
    "a directory that is a link out": (ref("path:linkdir", None), "MODEL_REJECTED"),
    "a path through a link": (ref("path:linkdir/secret.gguf"), "CONFIG"),
    "a pipe": (ref("path:pipe.gguf", None), "MODEL_REJECTED"),
    "a file that everybody may change": (ref("path:everybody.gguf", None), "MODEL_REJECTED"),
    "another scheme": (ref("file:///etc/passwd"), "CONFIG"),
    "this machine": (at("127.0.0.1"), "SOURCE_NOT_ALLOWED"),
    "another address of it": (at("127.0.0.2"), "SOURCE_NOT_ALLOWED"),
    "a decimal address": (at("2130706434"), "SOURCE_NOT_ALLOWED"),
    "a short address": (at("127.2"), "SOURCE_NOT_ALLOWED"),
    "a name for this machine": (at("localhost"), "SOURCE_NOT_ALLOWED"),
    "IPv6 loopback": (at("[::1]"), "SOURCE_NOT_ALLOWED"),
    "IPv4 in IPv6": (at("[::ffff:127.0.0.2]"), "SOURCE_NOT_ALLOWED"),
    "IPv4 behind NAT64": (at("[64:ff9b::7f00:2]"), "SOURCE_NOT_ALLOWED"),
    "a cloud's metadata": (ref("https://169.254.169.254/latest/x"), "SOURCE_NOT_ALLOWED"),
    "a private network": (ref("https://10.0.0.1/x"), "SOURCE_NOT_ALLOWED"),
    "a router": (ref("https://192.168.1.1/x"), "SOURCE_NOT_ALLOWED"),
    "a password in a URL": (ref("https://me:pw@hub.example/x"), "CONFIG"),
    "plain http": (lambda world: ref(world.at_victim("http")), "SOURCE_NOT_ALLOWED"),
    "a hub's file that climbs": (ref("hf://o/r/../../../x.gguf"), "CONFIG"),
    "a hub's revision that climbs": (ref("hf://o/r/x.gguf@../../x"), "CONFIG"),
    "a hub's second revision": (ref("hf://o/r/x.gguf@main@127.0.0.2"), "CONFIG"),
    "a hub that is a host": (ref("hf://127.0.0.2:80/r/x.gguf"), "CONFIG"),
    "a redirect inside": (ref("hf://o/r/moved.gguf"), "SOURCE_NOT_ALLOWED"),
    "a redirect inside by https": (ref("hf://o/r/to-https.gguf"), "SOURCE_NOT_ALLOWED"),
    "a redirect to a file": (ref("hf://o/r/file.gguf"), "SOURCE_NOT_ALLOWED"),
    "packed bytes": (ref("hf://o/r/bomb.gguf"), "MODEL_REJECTED"),
    "more than the quota": (ref("hf://o/r/huge.gguf"), "MODEL_TOO_LARGE"),
    "another digest": (ref("hf://o/r/wrong.gguf"), "MODEL_REJECTED"),
    "no digest": (ref("hf://o/r/wrong.gguf", None), "CONFIG"),
    "a member that climbs": (ref("pypi://p==1/../../x.gguf"), "CONFIG"),
    "a package that is a flag": (ref("pypi://--index-url==1/x.gguf"), "CONFIG"),
    "a package that is a URL": (ref("pypi://p @ https://127.0.0.2/x==1/x.gguf"), "CONFIG"),
    "a server's model": (ref("remote:llama3"), "SOURCE_NOT_ALLOWED"),
    "a quantization that is a flag": ({"model": {"quantization": "--rpc"}}, "CONFIG"),
    "a quantization that is a path": ({"model": {"quantization": "../../x"}}, "CONFIG"),
    "a quantization that is a command": ({"model": {"quantization": "$(reboot)"}}, "CONFIG"),
    "a backend that is a flag": ({"backend": "--rpc"}, "CONTRACT"),
    "a backend that is a module": ({"backend": "os"}, "BACKEND_UNAVAILABLE"),
    "a backend inside that is a module": (
        {"options": {**OPTIONS, "inner_backend": "subprocess"}}, "OPTION_NOT_TAKEN",
    ),
    "a million tokens for 256": ({"options": {**OPTIONS, **MILLION}}, "MODEL_TOO_LARGE"),
    "1024 threads": ({"options": {**OPTIONS, "threads": 1024}}, "JOB_TOO_LARGE"),
    "billions of trials": (
        {"workload": {"prompts": ["x"] * 100_000, "repetitions": 10_000, "kind": "multi"}},
        "JOB_TOO_LARGE",
    ),
    "a soak of a week": (
        {"workload": {"kind": "soak", "duration_s": 604_800.0}, "timeouts": {"job_s": 604_800.0}},
        "JOB_TOO_LARGE",
    ),
    "a job that never ends": ({"timeouts": {"job_s": 1e308}}, "JOB_TOO_LARGE"),
}  # fmt: skip


def test_each_hostile_job_is_rejected_in_words_before_anything_begins(world, centre):
    for name, (changes, code) in REJECTED.items():
        job = world.job(**(changes(world) if callable(changes) else changes))
        centre.assign(job)
        record = centre.wait_for_end(job["job_id"])
        assert str(record.state) == "REJECTED", (name, record)
        assert record.failure is not None
        assert (name, record.failure.code) == (name, code), record.failure.message
        assert "made a mistake" not in record.failure.message
    assert [record for record in centre.records if record.kind in ("load", "trial")] == []
    assert world.seen("reads") == []
    assert world.victim.heard == []


def test_a_context_for_a_million_tokens_says_what_it_needs_and_what_is_there(centre):
    told = [one.failure.message for one in centre.records if one.kind == "job" and one.failure]
    (message,) = [one for one in told if "KV cache of 256 contexts" in one]
    assert "does not fit in memory: needs " in message
    assert message.split("hint")[0].rstrip().endswith("free")


def test_a_machine_that_is_never_quiet_enough_is_not_held_longer_than_its_owner_allows(
    world, centre
):
    never = {"quiet_gate": {"cpu_percent_max": 1e-300, "timeout_s": 1e308}}
    job = world.job(**never, timeouts={"job_s": 1.0, "load_s": 1e308, "trial_s": 1e308})
    centre.assign(job)
    record = centre.wait_for_end(job["job_id"])
    assert str(record.state) == "TIMED_OUT"
    assert record.failure is not None
    assert "all that its owner allows" in record.failure.message


def test_words_that_mean_something_to_engines_and_shells_stay_words(world, centre):
    words = ["<|im_end|></s>[INST]", "%s%n%x{0}{}", "--rpc evil:1", "\x1b[2J\r\n$(reboot)`id`"]
    job = world.job(
        model={"ref": "path:--rpc"},
        workload={"kind": "multi", "prompts": words},
        labels={"'; DROP TABLE jobs; --": "a b,c=d\\\n", "=,\\ ": 1e308, "\u202e": True},
        usd_per_hour=1.7e308,
    )
    centre.assign(job)
    assert str(centre.wait_for_end(job["job_id"]).state) == "SUCCEEDED"
    (line,) = [run for run in world.seen("runs") if "--port" in run and "--rpc" in " ".join(run)]
    assert line[line.index("--model") + 1] == str(world.models / "--rpc")
    assert "--rpc" not in line
    trials = [record for record in centre.records if record.kind == "trial"]
    assert len(trials) == len(words)
    assert {trial.cost_usd for trial in trials} != {float("inf")}


def test_a_flood_of_jobs_waits_in_bounds_and_can_be_ended(world, centre):
    slow = {"quiet_gate": {"cpu_percent_max": 1e-300, "timeout_s": 60.0}}
    flood = [world.job(**slow) for _ in range(2 * MAX_OPEN_JOBS)]
    for job in flood:
        centre.assign(job)
    refused = flood[MAX_OPEN_JOBS + 1 :]
    for job in refused:
        record = centre.wait_for_end(job["job_id"])
        assert str(record.state) == "REJECTED"
        assert record.failure is not None
        assert f"{MAX_OPEN_JOBS} jobs wait on this device" in record.failure.message
    for job in flood:
        centre.assign(job, "cancel")
    for job in flood[:MAX_OPEN_JOBS]:
        assert str(centre.wait_for_end(job["job_id"]).state) == "CANCELED"


def test_after_all_of_it_the_next_good_job_runs_and_nothing_else_was_touched(world, centre):
    pid = world.fleet.pid("pi")
    job = world.job()
    centre.assign(job)
    assert str(centre.wait_for_end(job["job_id"]).state) == "SUCCEEDED"
    assert world.fleet.pid("pi") == pid
    assert world.seen("reads") == []
    assert world.victim.heard == []
    ours = [world.models, world.fleet.state_dir("pi"), world.temporary]
    allowed = (*map(str, ours), str(world.directory / "bench.lock"), "/dev/null", "/proc/self/")
    written = {path for path in world.seen("writes") if not path.startswith(allowed)}
    # The stand-in for an engine tries to remove a mark of its own.
    assert {path for path in written if "/fakes/taken-" not in path} == set()
    connected = {tuple(address[:2]) for address in world.seen("connects") if len(address) > 1}
    # The broker, the hub, the index that is not there, engines, the MQTT client's pair to itself.
    assert {host for host, _ in connected} == {"127.0.0.1"}
    assert ("127.0.0.1", world.victim.port) not in connected
    programs = {Path(run[0]).name for run in world.seen("runs") if isinstance(run, list)}
    python = {name for name in programs if name.startswith("python")}
    assert programs - python <= {"llama-server", "ldconfig", "gcc", "cc", "ollama", "lsb_release"}
    wait_for(lambda: "job_broke" not in world.fleet.log("pi"), 1, "an agent without mistakes")
