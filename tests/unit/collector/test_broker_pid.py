"""The number of a running broker: held for as long as it lives, and never taken for another's."""

import os
import subprocess
import sys

from fleetmark_collector.enrolment import running


def test_a_number_that_was_left_behind_is_not_taken_for_a_broker(tmp_path):
    file = tmp_path / "pid"
    assert running.running_pid(file) is None
    file.write_text(f"{os.getppid()}\n")
    assert running.running_pid(file) is None


def test_the_number_is_held_through_exec_for_as_long_as_the_process_lives(tmp_path):
    file = tmp_path / "pid"
    become = (
        "import os, pathlib, sys; from fleetmark_collector.enrolment import running;"
        "running.hold_pid_file(pathlib.Path(sys.argv[1]));"
        "os.execvp('sh', ['sh', '-c', 'echo ready; read line'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", become, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        assert running.running_pid(file) == process.pid
        process.communicate(b"\n")
    assert running.running_pid(file) is None


def test_a_look_at_the_number_and_a_signal_during_the_start_leave_the_broker_alive(tmp_path):
    file = tmp_path / "pid"
    become = (
        "import fcntl, os, pathlib, signal, sys\n"
        "from fleetmark_collector.enrolment import running\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "looks = open(sys.argv[1], 'w')\n"
        "fcntl.flock(looks, fcntl.LOCK_SH)\n"
        "def wait(_):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    looks.close()\n"
        "running.time.sleep = wait\n"
        "running.hold_pid_file(pathlib.Path(sys.argv[1]))\n"
        "os.execvp('sh', ['sh', '-c', 'kill -HUP $$; echo alive'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", become, file], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
