"""How fast data messages are decoded, against what merely parsing their JSON costs.

One process, CPU time, best of several rounds, so that a busy machine disturbs little. Messages
hold 100 telemetry records of a four-core device.

    python benchmarks/decode_speed.py
"""

import json
import random
import time
import uuid
from collections.abc import Callable

from pydantic_core import from_json

from fleetmark_protocol import codec
from fleetmark_protocol.records import TelemetryRecord

RECORDS = 100
ROUNDS = 9
REPEAT = 60


def sample(rng: random.Random, boot_id: str, number: int) -> TelemetryRecord:
    return TelemetryRecord(
        time_ns=1_700_000_000_000_000_000 + number,
        boot_id=boot_id,
        cpu_percent=rng.random() * 100,
        cpu_percent_per_core=tuple(rng.random() * 100 for _ in range(4)),
        cpu_steal_percent=0.0,
        load_1m=rng.random(),
        load_5m=rng.random(),
        cpu_freq_hz=1.5e9,
        temperature_c=55.3,
        mem_total_bytes=4 * 2**30,
        mem_available_bytes=2**30,
        mem_used_percent=rng.random() * 100,
        swap_used_bytes=0,
        swap_in_bytes=0,
        disk_free_bytes=10**10,
        disk_read_bytes_per_s=1e3 * rng.random(),
        disk_write_bytes_per_s=1e3 * rng.random(),
        net_rx_bytes_per_s=100.0,
        net_tx_bytes_per_s=200.5,
        agent_cpu_percent=0.4,
        agent_rss_bytes=30 * 2**20,
    )


def rate(work: Callable[[], object]) -> float:
    best_s = float("inf")
    for _ in range(ROUNDS):
        start_s = time.process_time()
        for _ in range(REPEAT):
            work()
        best_s = min(best_s, time.process_time() - start_s)
    return RECORDS * REPEAT / best_s


def main() -> None:
    rng, epoch = random.Random(1), str(uuid.uuid4())
    records = [sample(rng, epoch, number) for number in range(RECORDS)]
    encoded = [codec.encode(record) for record in records]
    good = codec.encode_batch(epoch, list(enumerate(encoded, 1)))
    one_bad = codec.encode_batch(epoch, [*enumerate(encoded[:-1], 1), (RECORDS, b"{}")])
    print(f"{len(good) / RECORDS:.0f} bytes a record; records per second of CPU time:")
    for label, work in (
        ("decode_batch", lambda: codec.decode_batch(good)),
        ("decode_batch, one record bad", lambda: codec.decode_batch(one_bad)),
        ("json.loads alone", lambda: json.loads(good)),
        ("pydantic's JSON parser alone", lambda: from_json(good)),
        ("encode", lambda: [codec.encode(record) for record in records]),
    ):
        print(f"{label:30} {rate(work):10,.0f}")


if __name__ == "__main__":
    main()
