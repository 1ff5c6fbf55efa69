"""Writing into real servers: InfluxDB 1.6 both ways, VictoriaMetrics; what they refuse and say."""

import signal
import subprocess
import time

import pytest
from pydantic import SecretStr

from collected import EPOCH, event, job, load, stored, telemetry, trial
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from fleetmark_protocol.errors import ConfigError, PartialWrite, StoreUnavailable
from influxservers import Influxd, Nginx, ask
from servers import wait_for

pytestmark = pytest.mark.integration

DAY_S = 86_400


@pytest.fixture(params=["direct", "v2 of 1.8", "v2 of 2"])
def database(request, influxd, influxd_v2_server, influxd_server, tmp_path):
    """A database, and settings that lead to it one way or another."""
    if request.param == "direct":
        yield influxd, InfluxSettings(influxd.url, influxd.name)
    elif request.param == "v2 of 1.8":
        made = influxd_v2_server.database()
        yield made, InfluxSettings(made.url, f"{made.name}/autogen")
        made.drop()
    else:
        front = Nginx(tmp_path / "nginx", influxd_server, "v2.7.11", token="sesame").start()
        made = front.database()
        settings = InfluxSettings(made.url, made.name, org="lab", token=SecretStr("sesame"))
        yield made, settings
        front.kill()
        made.drop()


@pytest.fixture
def server(tmp_path):
    """Make InfluxDB servers of a test's own."""
    made: list[Influxd] = []

    def make(**options) -> Influxd:
        made.append(Influxd(tmp_path / f"influxd{len(made)}", **options).start())
        return made[-1]

    yield make
    for one in made:
        one.kill()


def now_s(offset_s: float = 0.0) -> float:
    return time.time() + offset_s


def one_of_each():
    records = (telemetry(), trial(), load(), job(), event())
    return [stored(record, seq=seq) for seq, record in enumerate(records, start=1)]


def test_records_are_there_when_the_write_returns_and_once_however_often_they_come(database):
    made, settings = database
    sink = InfluxSink(settings)
    for _ in range(3):
        sink.write(one_of_each())
    for kind in ("telemetry", "trial", "load", "job", "event"):
        assert made.count(kind) == 1, kind
    (row,) = made.rows("SELECT * FROM telemetry")
    assert (row["fleet"], row["device"], row["epoch"], row["seq"]) == ("lab", "pi", EPOCH, 1)
    assert (row["cpu_percent"], row["time"]) == (12.5, "1970-01-01T00:00:01Z")
    sink.close()


def test_a_record_whose_field_has_another_type_is_refused_alone_with_the_servers_reason(database):
    made, settings = database
    taken = "trial,fleet=lab,device=pi seq=1i,latency_s=true 1"
    assert ask(made.server.url, "/write", {"db": made.name}, taken.encode()).status == 204
    batch = [stored(telemetry(n), seq=n) for n in range(1, 101)]
    batch[30] = stored(trial(31, latency_s=2.5), seq=31)
    batch[77] = stored(trial(78, latency_s=3.5), seq=78)
    sink = InfluxSink(settings)
    with pytest.raises(PartialWrite) as caught:
        sink.write(batch)
    assert caught.value.rejected.keys() == {30, 77}
    assert "field type conflict" in caught.value.rejected[30]
    assert len(caught.value.accepted) == 98
    assert made.count("telemetry") == 98
    sink.close()


def test_records_older_than_what_is_kept_are_refused_and_the_others_written(database):
    made, settings = database
    policy = f'ON "{made.name}" DURATION 2d SHARD DURATION 1h'
    assert "error" not in made.query(f"ALTER RETENTION POLICY autogen {policy}")["results"][0]
    now = now_s()
    batch = [stored(telemetry(now + n), seq=n) for n in range(1, 1001)]
    # A device that came up in 1970: a whole message of it, which is one find for the server.
    batch[400:500] = [stored(telemetry(n), seq=n, device="reset") for n in range(1, 101)]
    sink = InfluxSink(settings)
    with pytest.raises(PartialWrite) as caught:
        sink.write(batch)
    assert sorted(caught.value.rejected) == list(range(400, 500))
    assert "beyond retention policy" in caught.value.rejected[450]
    assert made.count("telemetry") == 900
    sink.close()


def test_a_database_that_is_not_there_stops_at_once_and_later_too(database):
    made, settings = database
    sink = InfluxSink(settings)
    sink.write(one_of_each())
    made.drop()
    with pytest.raises(ConfigError, match="database not found") as caught:
        sink.write(one_of_each())
    assert "store.bucket" in caught.value.hint
    with pytest.raises(ConfigError, match="database not found"):
        InfluxSink(settings).connect()


def test_a_retention_policy_that_is_not_there_names_the_setting(influxd, influxd_v2_server):
    for url in (influxd.url, influxd_v2_server.url):
        with pytest.raises(ConfigError, match="retention policy not found") as caught:
            InfluxSink(InfluxSettings(url, f"{influxd.name}/forever")).connect()
        assert "after the slash" in caught.value.hint


def test_who_may_not_write_is_told_before_there_is_anything_to_write(server):
    influxd = server(auth=True)
    name = influxd.database().name
    influxd.query("CREATE USER bob WITH PASSWORD 'b'")
    with pytest.raises(ConfigError, match="401"):
        InfluxSink(InfluxSettings(influxd.url, name)).connect()
    wrong = InfluxSettings(influxd.url, name, username="admin", password=SecretStr("no"))
    with pytest.raises(ConfigError, match="401") as caught:
        InfluxSink(wrong).connect()
    assert "store.username" in caught.value.hint
    bob = InfluxSettings(influxd.url, name, username="bob", password=SecretStr("b"))
    with pytest.raises(ConfigError, match="403"):
        InfluxSink(bob).connect()
    influxd.query(f'GRANT WRITE ON "{name}" TO bob')
    InfluxSink(bob).write(one_of_each())
    InfluxSink(InfluxSettings(influxd.url, name, token=SecretStr("admin:secret"))).connect()


def test_a_request_that_is_too_large_for_the_server_is_sent_in_parts(server):
    database = server(changes={"http.max-body-size": "20000"}).database()
    sink = InfluxSink(InfluxSettings(database.url, database.name))
    sink.write([stored(telemetry(n), seq=n) for n in range(1, 1001)])
    assert database.count("telemetry") == 1000
    too_large = stored(event(message="x" * 4096, data={f"k{n}": "y" * 512 for n in range(60)}))
    with pytest.raises(PartialWrite) as caught:
        sink.write([stored(telemetry(n), seq=n) for n in range(2001, 2101)] + [too_large])
    assert "Too Large" in caught.value.rejected[100]
    assert database.count("telemetry") == 1100


def test_a_limit_of_series_leaves_new_ones_to_their_agents_and_takes_the_known_ones(tmp_path):
    influxd = Influxd(tmp_path / "i", changes={"data.max-series-per-database": "3"}).start()
    database = influxd.database()
    sink = InfluxSink(InfluxSettings(database.url, database.name))
    sink.write([stored(telemetry(1), device=f"d{n}") for n in range(3)])
    more = [stored(telemetry(2), seq=2, device=f"d{n}") for n in range(6)]
    with pytest.raises(PartialWrite, match="max-series-per-database") as caught:
        sink.write(more)
    assert sorted(caught.value.accepted) == [0, 1, 2]
    assert caught.value.rejected == {}, "no record is to blame"
    influxd.kill()
    again = Influxd(tmp_path / "i").start()  # the same data, without the limit
    raised = InfluxSink(InfluxSettings(again.url, database.name))
    raised.write(more)
    assert again.query("SELECT count(seq) FROM telemetry", database.name)["results"][0]["series"][
        0
    ]["values"] == [["1970-01-01T00:00:00Z", 9]]
    again.kill()


def test_a_server_that_has_no_memory_left_is_tried_again(server):
    database = server(changes={"data.cache-max-memory-size": "50000"}).database()
    sink = InfluxSink(InfluxSettings(database.url, database.name))

    def fill() -> None:
        for start in range(0, 10_000, 100):
            sink.write([stored(telemetry(start + n), seq=start + n + 1) for n in range(100)])

    with pytest.raises(StoreUnavailable, match="cache-max-memory-size"):
        fill()


def test_what_was_said_yes_to_outlives_a_kill_of_the_server(server):
    influxd = server()
    database = influxd.database()
    sink = InfluxSink(InfluxSettings(database.url, database.name, timeout_s=2.0))
    sink.write([stored(telemetry(n), seq=n) for n in range(1, 501)])
    influxd.kill()
    later = [stored(telemetry(n), seq=n) for n in range(501, 601)]
    with pytest.raises(StoreUnavailable):
        sink.write(later)
    influxd.start()
    assert database.count("telemetry") == 500
    sink.write(later)
    assert database.count("telemetry") == 600
    sink.close()


def test_a_server_that_hangs_is_given_up_and_what_it_took_meanwhile_is_not_doubled(server):
    influxd = server()
    database = influxd.database()
    sink = InfluxSink(InfluxSettings(database.url, database.name, timeout_s=1.0))
    sink.connect()
    batch = [stored(telemetry(n), seq=n) for n in range(1, 501)]
    influxd.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            sink.write(batch)
    finally:
        influxd.signal(signal.SIGCONT)
    wait_for(lambda: database.count("telemetry") >= 0, what="the server to go on")
    sink.write(batch)
    assert database.count("telemetry") == 500
    sink.close()


def test_lines_arrive_compressed_as_they_do_plain(database, monkeypatch):
    made, settings = database
    monkeypatch.setattr("fleetmark_collector.config.is_loopback", lambda host: False)
    InfluxSink(settings).write([stored(telemetry(n), seq=n) for n in range(1, 301)])
    assert made.count("telemetry") == 300


def test_the_v2_path_is_the_one_of_influxdb_client_without_compression(influxd_v2_server):
    database = influxd_v2_server.database()
    InfluxSink(InfluxSettings(database.url, f"{database.name}/autogen")).write(one_of_each())
    last = influxd_v2_server.requests()[-1]
    assert last.startswith("POST /api/v2/write?")
    assert f"bucket={database.name}%2Fautogen" in last
    assert "precision=ns" in last
    assert last.endswith(" -"), "no Content-Encoding on loopback"
    database.drop()


@pytest.mark.parametrize(("version", "kind"), [("1.6.7", "influxdb1"), ("v2.7.11", "influxdb2")])
def test_a_certificate_is_checked_against_the_ca_of_the_settings(server, tmp_path, version, kind):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    plain = server()
    database = plain.database()
    front = Nginx(tmp_path / "nginx", plain, version, certificate=certificate, key=key).start()
    trusted = InfluxSink(InfluxSettings(front.url, database.name, ca_file=certificate))
    assert front.url.startswith("https:")
    assert trusted.connect().kind == kind
    trusted.write(one_of_each())
    assert database.count("trial") == 1
    with pytest.raises(ConfigError, match="not to be trusted") as caught:
        InfluxSink(InfluxSettings(front.url, database.name)).connect()
    assert "store.ca_file" in caught.value.hint
    front.kill()


def test_victoria_metrics_takes_the_numbers(victoria_metrics):
    sink = InfluxSink(InfluxSettings(victoria_metrics.url, "fleetmark"))
    assert sink.connect().kind == "victoriametrics"
    start_s = round(time.time()) - 60
    sink.write(
        [
            stored(telemetry(start_s + n, cpu_percent=20.5 + n), seq=n + 1, fleet="vm", device="pi")
            for n in range(30)
        ]
    )
    selector = 'telemetry_cpu_percent{fleet="vm",device="pi"}'
    wait_for(
        lambda: [len(one["values"]) for one in victoria_metrics.series(selector)] == [30],
        what="30 samples",
    )
    (series,) = victoria_metrics.series(selector)
    assert dict(zip(series["timestamps"], series["values"], strict=True)) == {
        (start_s + n) * 1000: 20.5 + n for n in range(30)
    }
    (seqs,) = victoria_metrics.series('telemetry_seq{fleet="vm",device="pi"}')
    assert sorted(seqs["values"]) == list(range(1, 31))
    sink.close()
