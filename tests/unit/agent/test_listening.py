"""Which process listens on a port: by real sockets, and by process files of another machine."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fleetmark_agent.telemetry.listening import listener_pid

OLLAMA_UID = 998
PORT = 11434
TITLE = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode\n"
LISTENS = """
import os, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
if sys.argv[1] == "inherit" and os.fork() == 0:
    time.sleep(60)
time.sleep(60)
"""


class Machine:
    """Process files as the kernel would show them."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        (proc / "net").mkdir()
        (proc / "uptime").touch()

    def listens(self, inode: int, uid: int, address: str = "0100007F", table: str = "tcp") -> None:
        file = self.proc / "net" / table
        line = (
            f"   0: {address}:{PORT:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
            f"  {uid}        0 {inode} 1 0000 100 0 0 10 0\n"
        )
        file.write_text((file.read_text() if file.exists() else TITLE) + line)

    def process(
        self, pid: int, parent: int, uid: int, command: str, sockets: tuple[int, ...] | None = None
    ) -> None:
        """Add one; without `sockets` its files cannot be seen."""
        folder = self.proc / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a (name) S) S {parent} {pid} {pid} 0 -1 0\n")
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (folder / "cmdline").write_text(command.replace(" ", "\0") + "\0" * bool(command))
        if sockets is not None:
            (folder / "fd").mkdir()
            (folder / "fd" / "0").symlink_to("/dev/null")
            for number, inode in enumerate(sockets, start=3):
                (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def found(self) -> int | None:
        return listener_pid(PORT, self.proc)


@pytest.fixture
def machine(tmp_path) -> Machine:
    made = Machine(tmp_path)
    made.process(1, 0, 0, "/sbin/init")
    made.process(2, 0, 0, "")
    return made


@pytest.mark.parametrize("how", ["alone", "inherit"])
def test_a_real_listener_is_found_and_of_those_that_share_its_socket_the_first(how):
    with subprocess.Popen(
        [sys.executable, "-c", LISTENS, how], stdout=subprocess.PIPE, text=True, process_group=0
    ) as server:
        port = int(server.stdout.readline())
        assert listener_pid(port) == server.pid
        os.killpg(server.pid, 9)


def test_a_real_listener_on_ipv6_is_found():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert listener_pid(server.getsockname()[1]) == os.getpid()


def test_a_port_on_which_nobody_listens_has_no_process():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listener_pid(bound.getsockname()[1]) is None


def test_a_connection_to_the_port_is_no_listener():
    handler = http.server.BaseHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with socket.create_connection(server.server_address) as connection:
            assert listener_pid(connection.getsockname()[1]) is None


def test_where_systemd_holds_the_socket_too_it_is_the_service(machine, tmp_path):
    (tmp_path / "1" / "fd").mkdir()
    (tmp_path / "1" / "fd" / "40").symlink_to("socket:[77]")
    machine.listens(77, 0)
    machine.process(900, 1, 0, "/usr/bin/ollama serve", (77,))
    assert machine.found() == 900


def test_another_users_server_is_its_owners_only_process(machine):
    machine.listens(77, OLLAMA_UID, "00000000000000000000000000000000", "tcp6")
    machine.process(900, 1, OLLAMA_UID, "/usr/local/bin/ollama serve")
    machine.process(950, 900, OLLAMA_UID, "/usr/local/bin/ollama runner --port 4711")
    machine.process(990, 1, 1000, "/usr/bin/python3 server", ())
    assert machine.found() == 900


def test_another_users_server_is_told_from_its_other_processes_by_what_it_is_asked_to_do(machine):
    machine.listens(77, 1000)
    machine.process(800, 1, 1000, "-bash")
    machine.process(900, 800, 1000, "/usr/local/bin/ollama serve")
    machine.process(950, 900, 1000, "/opt/llama-server --port 4711")
    assert machine.found() == 900


def test_which_of_two_servers_of_another_user_it_is_cannot_be_told(machine):
    machine.listens(77, 0)
    machine.process(900, 1, 0, "/usr/local/bin/ollama serve")
    machine.process(901, 1, 0, "/usr/bin/hugo server")
    assert machine.found() is None


def test_a_machine_of_roots_services_has_no_only_one(machine):
    machine.listens(77, 0)
    machine.process(300, 1, 0, "/usr/sbin/sshd -D")
    machine.process(301, 1, 0, "/usr/sbin/cron")
    assert machine.found() is None


@pytest.mark.parametrize("sockets", [(77,), None])
def test_who_only_forwards_into_a_container_does_none_of_its_work(machine, sockets):
    machine.listens(77, 0)
    machine.process(900, 1, 0, "/usr/bin/docker-proxy -proto tcp", sockets)
    assert machine.found() is None
