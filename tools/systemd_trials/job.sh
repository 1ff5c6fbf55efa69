# shellcheck shell=bash disable=SC2154,SC2086
# A job with a real engine, through a restart of the agent and a reboot of the machine, to its end.
. "$(dirname "$0")/common.sh"

asked() { # PYTHON EXPRESSION of the campaign `c`
    fleetmark campaign status --json | python3 -c "import json, sys; c = json.load(sys.stdin); print($1)"
}
stored() { [ "$(asked 'c["trials_stored"]')" -ge "$1" ]; }
state() { is "$(asked 'c["state"]')" "$1"; }
ended() { ! state RUNNING; }
repetitions=29 warmup=1

case $1 in
1)
    refuse 2 "a model that the agent's user cannot read" fleetmark-agent model add /root/dist
    expect "a model" fleetmark-agent model add /srv/smollm2-135m.gguf
    cat >/root/long.yaml <<YAML
version: 1
name: long
targets: {devices: [board]}
matrix:
  backend: xllamacpp
  model: {name: smollm2-135m, ref: "path:smollm2-135m.gguf"}
workloads:
  - {name: story, kind: single, prompt: Once upon a time, output_tokens: 96, warmup: $warmup, repetitions: $repetitions}
quiet_gate: {cpu_percent_max: 100}
YAML
    chmod a+r /root/long.yaml && cp /root/long.yaml /var/lib/fleetmark/
    expect "a campaign" fleetmark campaign run --detach /var/lib/fleetmark/long.yaml
    within 120 "three trials are there" stored 3
    expect "restart of the agent in the middle" systemctl restart fleetmark-agent
    say "$(asked 'c["trials_stored"]') of $((warmup + repetitions)) trials at the restart"
    within 120 "it goes on: eight trials are there" stored 8
    say "$(asked 'c["trials_stored"]') of $((warmup + repetitions)) trials at the reboot"
    state RUNNING || die "too late for a reboot in the middle"
    exit 75
    ;;
2)
    expect "the agent came with the machine" active
    [ "$(asked 'c["trials_stored"]')" -lt $((warmup + repetitions)) ] || die "all was over before the reboot"
    within 600 "the job has ended" ended
    state SUCCEEDED || { fleetmark campaign show >&2; die "it did not succeed"; }
    rm -rf /var/lib/fleetmark/long
    expect "export" fleetmark campaign export --output /var/lib/fleetmark/long
    python3 - /var/lib/fleetmark/long $((warmup + repetitions)) <<'PYTHON' >&2 || die "not each trial exactly once"
import collections, json, pathlib, sys
directory, planned = pathlib.Path(sys.argv[1]), int(sys.argv[2])
lines = [json.loads(line) for line in (directory / "trials.jsonl").open()]
trials = [one["record"] for one in lines]
times = collections.Counter(one["trial_index"] for one in trials)
assert times == collections.Counter(range(planned)), times
attempts = collections.Counter(one["attempt"] for one in trials)
assert len(attempts) >= 3, attempts
print(f"  ok: {planned} trials, each exactly once; in attempts {dict(attempts)}")
PYTHON
    ;;
esac
