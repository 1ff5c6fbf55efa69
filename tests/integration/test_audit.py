"""`make audit` finds a package with a known hole, and never says all is well without looking."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.fake_osv import FakeOsv

ROOT = Path(__file__).resolve().parents[2]
CANARY = {("jinja2", "2.11.2"): "PYSEC-2021-66"}

pytestmark = pytest.mark.integration


def audit(osv, *args, cache):
    environment = {
        **os.environ,
        "FLEETMARK_OSV_URL": osv,
        "NO_PROXY": "127.0.0.1",
        "XDG_CACHE_HOME": str(cache),
    }
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "audit.py", *args],
        env=environment,
        capture_output=True,
        text=True,
    )


def pinned():
    """Name and version of what constraints.txt pins."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in pairs}


def test_every_pinned_package_is_asked_about_and_none_is_known_to_be_bad(tmp_path):
    with FakeOsv(CANARY) as osv:
        done = audit(osv.url, cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pinned() <= set(osv.asked)
    assert f"{len(pinned())} packages audited by {osv.url}: 0 known holes" in done.stdout


def test_a_package_with_a_known_hole_fails_the_check_and_is_named_with_its_cure(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# old\nsix==1.17.0\npyyaml==5.3\n", "utf-8")
    with FakeOsv({**CANARY, ("pyyaml", "5.3"): "PYSEC-2020-96"}) as osv:
        done = audit(osv.url, "--if-reachable", requirements, cache=tmp_path)
    assert done.returncode == 1
    assert "pyyaml 5.3: PYSEC-2020-96; without it: 99.1" in done.stdout
    assert "six" not in done.stdout


def test_a_service_that_does_not_know_a_famous_hole_is_not_believed(tmp_path):
    with FakeOsv({}) as osv:
        done = audit(osv.url, cache=tmp_path)
        lenient = audit(osv.url, "--if-reachable", cache=tmp_path)
    said = f"not audited: no vulnerability service reachable (tried {osv.url})\n"
    assert (done.returncode, done.stdout) == (1, said)
    assert (lenient.returncode, lenient.stdout) == (0, said)
    # It was asked about that one alone.
    assert set(osv.asked) == set(CANARY)


@pytest.mark.parametrize("status", [404, None], ids=["a mirror", "nobody"])
def test_a_service_that_does_not_answer_the_question_is_none(tmp_path, status):
    with FakeOsv(CANARY, status or 200) as osv:
        if status:
            done = audit(osv.url, cache=tmp_path)
    if not status:
        done = audit(osv.url, cache=tmp_path)
    assert done.returncode == 1
    assert "no vulnerability service reachable" in done.stdout
