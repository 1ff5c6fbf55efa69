"""What is run on devices is constant, and makes the user as the package does."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from fleetmark_collector.fleet import scripts

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def test_the_agents_user_is_the_packages():
    lines = (DEPLOY / "systemd" / "fleetmark-agent.sysusers.conf").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [scripts.USER]


HEARD = {"connected": True, "collector_version": "1.0", "collector_refusal": None}
UNHEARD = {**HEARD, "collector_version": None}
REFUSED = {**HEARD, "collector_refusal": "too new"}
AWAY = {**UNHEARD, "connected": False}


@pytest.fixture
def waits(tmp_path):
    """Run the script where the agent gives these answers, the last for ever; return what it says.

    Nobody sleeps: how often the agent was asked stands in `asked`.
    """
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sleep").write_text("#!/bin/sh\n")
    (commands / "fleetmark-agent").write_text(
        f"""#!/bin/sh
        cd {tmp_path}
        echo >>asked
        n=$(wc -l <asked)
        [ -e answer$n ] || n=last
        cat answer$n
        exit $(cat code$n)
        """
    )
    for file in commands.iterdir():
        file.chmod(0o755)

    def run(*answers):
        for number, answer in enumerate(answers, 1):
            name = "last" if number == len(answers) else number
            (tmp_path / f"answer{name}").write_text(json.dumps(answer, indent=2))
            well = answer["connected"] and not answer["collector_refusal"]
            (tmp_path / f"code{name}").write_text("0" if well else "1")
        done = subprocess.run(
            ["sh", "-c", scripts.WAIT],
            input="30\n",
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        )
        asked = (tmp_path / "asked").read_text().count("\n")
        return json.loads(done.stdout), asked

    return run


@pytest.mark.parametrize(
    ("answers", "end", "asked"),
    [
        ((HEARD,), HEARD, 1),
        ((AWAY, HEARD), HEARD, 2),
        # Online before the collector has said a word: its refusal is waited for.
        ((AWAY, UNHEARD, REFUSED), REFUSED, 3),
        ((UNHEARD, HEARD), HEARD, 2),
        # What it knows of a collector is from before.
        (({**REFUSED, "connected": False}, HEARD), HEARD, 2),
        # There is no collector.
        ((UNHEARD,), UNHEARD, 5),
    ],
)
def test_it_is_waited_until_the_device_is_online_and_the_collector_has_had_a_moment(
    waits, answers, end, asked
):
    assert waits(*answers) == (end, asked)
