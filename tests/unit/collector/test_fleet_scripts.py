"""What is run on devices is constant, and makes the user as the package does."""

from pathlib import Path

from fleetmark_collector.fleet import scripts

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def test_the_agents_user_is_the_packages():
    lines = (DEPLOY / "systemd" / "fleetmark-agent.sysusers.conf").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [scripts.USER]
