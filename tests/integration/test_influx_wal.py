"""A write-ahead log of InfluxDB whose end was cut off by a kill: nothing said yes to is lost."""

import importlib.machinery
import importlib.util
import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influxservers import TRIM_WAL, Influxd, ask

pytestmark = pytest.mark.integration


def _load():
    loader = importlib.machinery.SourceFileLoader("fleetmark_trim_wal", str(TRIM_WAL))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


whole_bytes = _load().whole_bytes

ENTRIES = st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40)), max_size=5)


def log_of(entries) -> bytes:
    return b"".join(bytes([kind]) + len(text).to_bytes(4) + text for kind, text in entries)


@given(ENTRIES)
def test_whole_entries_stay(entries):
    assert whole_bytes(log_of(entries)) == len(log_of(entries))


@given(ENTRIES, st.binary(min_size=1, max_size=40), st.data())
def test_an_unfinished_entry_at_the_end_goes(entries, text, data):
    last = log_of([(1, text)])
    cut = data.draw(st.integers(1, len(last) - 1))
    assert whole_bytes(log_of(entries) + last[:cut]) == len(log_of(entries))


@given(ENTRIES, st.integers(1, 100))
def test_zeros_at_the_end_go(entries, zeros):
    assert whole_bytes(log_of(entries) + bytes(zeros)) == len(log_of(entries))


@given(ENTRIES, st.binary(min_size=1, max_size=40))
def test_what_cannot_be_understood_is_left_to_influxdb(entries, junk):
    data = log_of(entries) + b"\x07" + junk
    assert whole_bytes(data) == len(data)


@pytest.fixture
def influxd(tmp_path):
    influxd = Influxd(tmp_path / "influxd").start()
    yield influxd
    influxd.kill()


@pytest.mark.parametrize(
    "rest",
    [b"\x01\x00\x00\x40\x00half of it", b"\x01\x00", b"\x01", bytes(4096)],
    ids=["half an entry", "half a header", "one byte", "zeros"],
)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_points_written_after_a_crash_outlive_the_next_restart(influxd, tmp_path, rest, end):
    database = influxd.database()

    def write(first: int) -> None:
        lines = b"\n".join(b"m seq=%di %d" % (seq, seq) for seq in range(first, first + 10))
        assert ask(influxd.url, "/write", {"db": database.name}, lines).status == 204

    write(1)
    influxd.kill()
    (log,) = (tmp_path / "influxd" / "wal" / database.name).rglob("*.wal")
    with log.open("ab") as out:
        out.write(rest)
    influxd.start()
    write(101)
    assert database.count("m") == 20
    influxd.end(end)
    influxd.start()
    assert database.count("m") == 20


def test_it_does_nothing_where_there_is_nothing_to_do(tmp_path):
    done = subprocess.run([TRIM_WAL, tmp_path / "not there"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
