"""The InfluxDB store as a whole, on a real server: prepared, checked, filled, copied and read."""

import itertools
import json
import re
import signal
import threading
from dataclasses import replace

import pytest
from pydantic import SecretStr

from collected import event, job, load, stored, telemetry, trial
from commands import fleetmark
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.admin import examine, prepare
from fleetmark_collector.sinks.influxdb.reader import InfluxReader
from fleetmark_collector.sinks.influxdb.schema import max_series
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable
from influxservers import Influxd
from servers import wait_for

pytestmark = pytest.mark.integration

DAY_S = 24 * 3600


def settings_of(database, **changes) -> InfluxSettings:
    return InfluxSettings(**{"url": database.url, "bucket": database.name, **changes})


def levels(settings) -> dict[str, str]:
    return {one.name: one.level for one in examine(settings)}


# --- prepare and check ---------------------------------------------------------------------------


def test_a_database_is_made_once_and_then_all_is_well(influxd_server):
    settings = InfluxSettings(influxd_server.url, 'made "here"')
    assert levels(settings)["database"] == "missing"
    first = list(prepare(settings, None))
    assert first[1:] == [
        'made the database made "here"',
        "the retention policy autogen is there: records are kept for ever",
    ]
    assert list(prepare(settings, None))[1] == 'the database made "here" is there'
    found = levels(settings)
    assert set(found.values()) == {"ok"}
    assert {"server", "clock", "database", "retention", "write", "read", "series"} <= set(found)
    assert levels(settings) == found, "a check leaves nothing that the next one stumbles over"


def test_retention_is_set_when_it_is_asked_for_and_else_left_alone(influxd):
    settings = settings_of(influxd)

    def duration() -> str:
        return influxd.rows("SHOW RETENTION POLICIES")[0]["duration"]

    assert list(prepare(settings, 90 * DAY_S))[2].endswith("records are kept for 90 days")
    assert duration() == "2160h0m0s"
    assert list(prepare(settings, None))[2].endswith("records are kept for 90 days")
    assert list(prepare(settings, 0))[2].endswith("records are kept for ever")
    assert duration() == "0s"


def test_a_retention_policy_of_its_own_is_made_written_to_and_read_from(influxd):
    settings = settings_of(influxd, bucket=f"{influxd.name}/year")
    assert levels(settings)["retention"] == "missing"
    assert list(prepare(settings, 10**5 * DAY_S // DAY_S * 3600))[2].startswith(
        "made the retention policy year"
    )
    list(prepare(settings, 0))
    sink, reader = InfluxSink(settings), InfluxReader(settings)
    sink.write([stored(trial())])
    assert reader.trials("c") == [stored(trial())]
    assert reader.counts()["trial"] == 1
    assert influxd.count("trial") == 0, "it is not in the default one"
    assert set(levels(settings).values()) == {"ok"}
    sink.close()
    reader.close()


def test_a_check_goes_through_what_stands_before_the_server(influxd_v2):
    found = levels(settings_of(influxd_v2))
    assert set(found.values()) == {"ok"}


def test_victoriametrics_can_be_written_but_not_read(victoria_metrics):
    settings = InfluxSettings(victoria_metrics.url, "any")
    found = levels(settings)
    assert (found["database"], found["write"]) == ("warn", "ok")
    reader = InfluxReader(settings)
    with pytest.raises(StoreError, match="does not answer InfluxQL"):
        reader.trials("c")
    reader.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks for passwords: `reader` may read and `writer` write `fm`."""
    server = Influxd(tmp_path_factory.mktemp("guarded"), auth=True).start()
    server.database("fm")
    for name, right in (("reader", "READ"), ("writer", "ALL"), ("nobody", "")):
        server.query(f"CREATE USER {name} WITH PASSWORD 'pw'")
        if right:
            server.query(f'GRANT {right} ON "fm" TO {name}')
    yield server
    server.kill()


def user(server, name: str, password: str = "pw") -> InfluxSettings:
    return InfluxSettings(server.url, "fm", username=name, password=SecretStr(password))


def test_an_admin_may_prepare_and_others_are_told_that_they_may_not(guarded):
    list(prepare(user(guarded, "admin", "secret"), None))
    assert list(prepare(user(guarded, "writer"), None))[1] == "the database fm is there"
    elsewhere = replace(user(guarded, "writer"), bucket="other")
    for settings in (elsewhere, user(guarded, "writer", "wrong")):
        with pytest.raises(ConfigError, match=r"may not see or change databases") as caught:
            list(prepare(settings, None))
        assert "wrong" not in str(caught.value)
    with pytest.raises(ConfigError, match="nobody may not"):
        list(prepare(InfluxSettings(guarded.url, "fm"), None))


def test_a_check_says_which_permission_is_missing(guarded):
    writer, reader = (levels(user(guarded, name)) for name in ("writer", "reader"))
    assert (writer["write"], writer["read"]) == ("ok", "ok")
    assert reader["write"] == "missing"


def test_who_may_not_read_is_told_so_and_it_is_no_outage(guarded):
    reader = InfluxReader(user(guarded, "nobody"))
    with pytest.raises(ConfigError, match=r"40[13]"):
        reader.trials("c")
    reader.close()


def test_no_database_yet_and_no_server_are_no_data_yet(influxd_server):
    for settings in (
        InfluxSettings(influxd_server.url, "nothing"),
        InfluxSettings("http://127.0.0.1:1", "fm"),
    ):
        reader = InfluxReader(settings)
        with pytest.raises(StoreUnavailable) as caught:
            reader.latest_telemetry()
        assert caught.value.hint
        reader.close()


# --- reading -------------------------------------------------------------------------------------


@pytest.fixture
def sink(influxd):
    sink = InfluxSink(settings_of(influxd))
    yield sink
    sink.close()


@pytest.fixture
def reader(influxd):
    reader = InfluxReader(settings_of(influxd))
    yield reader
    reader.close()


def test_an_empty_database_reads_as_an_empty_store(reader):
    assert reader.trials("c") == reader.loads("c") == reader.job_records("c") == []
    assert reader.events() == reader.telemetry("lab", "pi", 0, 10**18) == []
    assert reader.latest_telemetry() == reader.trial_counts("c") == {}
    assert set(reader.counts().values()) == {0}


def test_the_newest_samples_are_found_whether_they_are_of_now_of_long_ago_or_of_tomorrow(
    sink, reader
):
    import time

    now_s = time.time()
    newest = {"now": now_s - 5, "past": 100.0, "year": now_s - 365 * DAY_S, "next": now_s + DAY_S}
    sink.write(
        [
            stored(telemetry(second - back), seq, device)
            for device, second in newest.items()
            for seq, back in enumerate((0, 1, 2), 1)
        ]
    )
    latest = reader.latest_telemetry()
    assert {device: sample.time_ns for (_, device), sample in latest.items()} == {
        device: int(second * 10**9) for device, second in newest.items()
    }


def test_what_comes_later_of_a_campaign_is_seen_by_a_reader_that_has_looked_before(sink, reader):
    for seq in range(1, 40):
        # Now and then out of order, in another fleet, and a trial that was measured again.
        item = trial(1000 - seq if seq % 3 else seq, f"c.pi.1.w.{seq // 2}.0")
        sink.write([stored(item, seq, fleet=f"lab{seq % 20}"), stored(job(seq), 1000 + seq)])
        wanted = {f"c.pi.1.w.{n // 2}.0" for n in range(1, seq + 1)}
        assert reader.trial_counts("c") == {"c.pi.1": len(wanted)}
        assert reader.trial_counts("c", ["c.pi.1"]) == {"c.pi.1": len(wanted)}
        assert len(reader.job_records("c")) == seq


def test_an_answer_of_many_pieces_is_read_whole(sink, reader):
    items = [stored(telemetry(second), second) for second in range(1, 12_001)]
    sink.write(items)
    found = reader.telemetry("lab", "pi", 0, 10**18)
    assert [sample.time_ns for sample in found] == [item.record.time_ns for item in items]


# --- cardinality ---------------------------------------------------------------------------------


def test_a_campaign_makes_as_many_series_as_the_budget_says_and_its_trials_make_none(influxd, sink):
    devices, campaigns, workloads = ("pi", "ec2", "nano"), ("c1", "c2"), ("single", "multi", "long")
    cells = list(itertools.product(("llama_cpp", "ollama"), ("Q8_0", "Q4_K_M", None), (1, 2, 4)))
    seconds = itertools.count(1)
    items = []
    for device in devices:
        items += [stored(telemetry(next(seconds)), next(seconds), device) for _ in range(20)]
        items += [stored(event(next(seconds)), next(seconds), device) for _ in range(3)]
        for campaign in campaigns:
            for number, (backend, quantization, threads) in enumerate(cells):
                job_id = f"{campaign}.{device}.{number}"
                run = {
                    "campaign_id": campaign,
                    "job_id": job_id,
                    "backend": backend,
                    "quantization": quantization,
                    "options": {"threads": threads, "context_tokens": 512},
                }
                states = [job(next(seconds), campaign_id=campaign, job_id=job_id) for _ in "ab"]
                made = [load(next(seconds), **run, attempt=attempt) for attempt in (1, 2)]
                made += [
                    trial(
                        next(seconds),
                        f"{job_id}.{workload}.{repetition}.0",
                        **run,
                        workload=workload,
                        repetition=repetition,
                        output_text=f"answer {repetition}",
                    )
                    for workload in workloads
                    for repetition in range(3)
                ]
                items += [stored(one, next(seconds), device) for one in (*states, *made)]
    sink.write(items)
    series = {row["key"] for row in influxd.rows("SHOW SERIES")}
    budget = max_series(len(devices), len(campaigns), len(cells), len(workloads))
    assert len(series) == budget
    assert len(items) > 3 * budget


# --- copies --------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path, influxd):
    """The command with a data directory, and settings that name the test's database."""
    config = tmp_path / "collector.toml"
    config.write_text(
        f'data_dir = "{tmp_path}/data"\n[store]\nkind = "influxdb"\nurl = "{influxd.url}"\n'
        f'bucket = "{influxd.name}"\n'
    )

    class Shell:
        data_dir = tmp_path / "data"

        def start(self, *arguments):
            log = tmp_path / f"{'-'.join(arguments)}.log"
            return fleetmark(*arguments, "--config", config, log=log)

        def run(self, *arguments) -> tuple[int, str]:
            command = self.start(*arguments)
            return command.process.wait(120), command.output()

    return Shell()


def fill(file, samples: int) -> None:
    sink = SqliteSink(file)
    sink.write([stored(telemetry(n), n) for n in range(1, samples + 1)])
    records = [trial(n, f"c.pi.1.w.{n}.0", options={"n": n % 7}) for n in range(1, 100)]
    records += [load(1), job(2), event(3)]
    sink.write([stored(one, samples + at) for at, one in enumerate(records, 1)])
    sink.close()


def test_the_embedded_store_moves_into_influxdb_and_back_without_losing_a_bit(
    shell, influxd, reader
):
    fill(shell.data_dir / "store.db", 7000)
    code, text = shell.run("store", "copy", "sqlite", "influxdb")
    assert code == 0, text
    assert "all 7102 records are in influxdb" in text
    assert influxd.count("telemetry") == 7000
    old = shell.data_dir / "old.db"
    (shell.data_dir / "store.db").rename(old)
    code, text = shell.run("store", "copy", "influxdb", "sqlite")
    assert code == 0, text
    assert "all 7102 records are in sqlite" in text
    first, second = SqliteReader(old), SqliteReader(shell.data_dir / "store.db")
    for ask in (
        lambda one: one.trials("c"),
        lambda one: one.loads("c"),
        lambda one: one.job_records("c"),
        lambda one: one.events(),
        lambda one: one.telemetry("lab", "pi", 0, 10**18),
    ):
        assert ask(first) == ask(second) == ask(reader)
    first.close()
    second.close()
    assert not list(shell.data_dir.glob("copy-*")), "nothing is left of a copy that is complete"


def test_a_copy_that_is_interrupted_goes_on_when_it_is_started_again(shell, influxd):
    fill(shell.data_dir / "store.db", 80_000)
    first = shell.start("store", "copy", "sqlite", "influxdb")
    wait_for(lambda: re.search(r"\b[2-6]\d%", first.output()), 60, "the copy to be under way")
    assert first.end(signal.SIGINT) == 130, first.output()
    assert "the same command goes on" in first.output()
    assert "Traceback" not in first.output()
    there = influxd.count("telemetry")
    assert 0 < there < 80_000
    code, text = shell.run("store", "copy", "sqlite", "influxdb")
    assert code == 0, text
    shares = re.findall(r"\((\d+)%\)", text.partition("stopped")[2])
    assert int(shares[0]) >= 20, "it did not begin anew"
    assert influxd.count("telemetry") == 80_000


def test_what_influxdb_cannot_hold_is_named_and_the_command_says_that_it_is_not_all(shell):
    fill(shell.data_dir / "store.db", 10)
    sink = SqliteSink(shell.data_dir / "store.db")
    sink.write([stored(event().model_copy(update={"time_ns": 2**63 - 1}), 999)])
    sink.close()
    code, text = shell.run("store", "copy", "sqlite", "influxdb")
    assert code == 1
    assert "event lab/pi seq 999: time_ns 9223372036854775807 is out of" in text
    assert "1 records can never be written to influxdb" in text
    assert "missing" not in text


def test_the_commands_say_what_they_found_and_exit_accordingly(shell, influxd):
    code, text = shell.run("store", "check")
    assert code == 0, text
    code, text = shell.run("store", "check", "--json")
    assert {one["name"] for one in json.loads(text)} >= {"server", "database", "write", "read"}
    influxd.drop()
    code, text = shell.run("store", "check")
    assert code == 1
    assert "fleetmark store init" in text
    code, text = shell.run("store", "init", "--retention", "2w")
    assert code == 0
    assert "records are kept for 14 days" in text
    code, text = shell.run("doctor")
    assert "store server" in text
    assert "missing store" not in text


# --- the whole -----------------------------------------------------------------------------------


def test_a_campaign_on_influxdb_reads_as_it_does_on_the_embedded_store(fleet, influxd):
    store = f'[store]\nkind = "influxdb"\nurl = "{influxd.url}"\nbucket = "{influxd.name}"\n'
    fleet.settings(store)
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    run = fleet.cli("campaign", "run", str(fleet.write_campaign()))
    assert run.returncode == 0, run.stdout + run.stderr
    campaign_id = str(fleet.status()["campaign_id"])
    fleet.assert_each_trial_once(campaign_id, 4)
    wait_for(lambda: influxd.count("telemetry") > 3, 30, "samples in InfluxDB")
    for name in ("pi-sim", "collector"):
        fleet.kill(name, signal.SIGTERM)

    def shown() -> dict[str, str]:
        figures, table = fleet.directory / "report.json", fleet.directory / "report.csv"
        commands = {
            "report": ("report", campaign_id),
            "files": ("report", campaign_id, "--json", str(figures), "--csv", str(table)),
            "status": ("campaign", "status", campaign_id, "--json"),
            "devices": ("devices", "--json"),
        }
        texts = {}
        for name, arguments in commands.items():
            done = fleet.cli(*arguments)
            assert done.returncode == 0, done.stderr
            texts[name] = done.stdout
        texts["figures"], texts["table"] = figures.read_text("utf-8"), table.read_text("utf-8")
        return texts

    on_influxdb = shown()
    assert json.loads(on_influxdb["devices"])[0]["telemetry"]["cpu_percent"] is not None
    assert not (fleet.data_dir / "store.db").exists()
    copied = fleet.cli("store", "copy", "influxdb", "sqlite")
    assert copied.returncode == 0, copied.stderr
    fleet.settings("")
    on_sqlite = shown()
    for name, text in on_influxdb.items():
        assert text == on_sqlite[name], name


# --- reading while it is written -----------------------------------------------------------------


def test_a_record_is_never_read_half_while_it_is_being_written(influxd):
    """InfluxDB lets a query see some of a point's fields before the others."""
    settings = settings_of(influxd)
    done = threading.Event()

    def written(seq: int):
        values = {"rss_bytes": 1, "ttft_s": 0.5, "output_text": "x", "options": {"threads": 2}}
        return stored(trial(seq, f"c.pi.1.w.{seq}.0", **values), seq)

    def write() -> None:
        sink = InfluxSink(settings)
        for start in range(1, 6001, 20):
            sink.write([written(seq) for seq in range(start, start + 20)])
        sink.close()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader = InfluxReader(settings)
    reads = 0
    while not done.is_set():
        for item in reader.trials("c")[-200:]:
            assert item == written(item.seq)
        reads += 1
    writer.join()
    assert [item.seq for item in reader.trials("c")] == list(range(1, 6001))
    assert reads > 3
    reader.close()
