"""Engines that come as Python packages: found, asked what they were built with, never imported."""

import sys

import pytest

from fleetmark_agent.backends import packages
from fleetmark_agent.backends.packages import parse_features, probe_package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a module whose code is given, as a part of an installed distribution (pytest's)."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    packages._ask_child.cache_clear()

    def make(code, features_code="print(made_engine.SYSTEM)"):
        (tmp_path / "made_engine.py").write_text(code)
        return probe_package("pytest", "made_engine", "made", features_code=features_code)

    yield make
    packages._ask_child.cache_clear()


def test_only_what_is_switched_on_is_a_feature():
    said = (
        "CPU : SSE3 = 1 | AVX512 = 0 | SVE_CNT = 16 | NEON = 1 | CUDA : ARCHS = 500,610 | NEON = 1"
    )
    assert parse_features(said) == ("SSE3", "NEON")
    assert parse_features("") == ()


def test_an_engine_says_what_it_was_built_with_and_is_not_imported_here(package):
    found = package("SYSTEM = 'AVX2 = 1 | BLAS = 0 |'")
    assert (found.available, found.features) == (True, ("AVX2",))
    assert found.version == pytest.__version__
    assert "made_engine" not in sys.modules


def test_it_is_asked_once(package, tmp_path):
    asked = tmp_path / "asked"
    code = f"open({str(asked)!r}, 'a').write('x'); SYSTEM = ''"
    for _ in range(3):
        assert package(code).available
    assert asked.read_text() == "x"


def test_an_engine_that_cannot_be_imported_is_not_available_and_says_why(package):
    found = package("import ctypes; ctypes.CDLL('libgomp-not-here.so.1')")
    assert not found.available
    assert "libgomp-not-here.so.1" in found.reason
    assert "pip install --force-reinstall" in found.hint


def test_an_engine_built_for_another_processor_is_found_out_before_a_job(package):
    found = package("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert not found.available
    assert "SIGILL" in found.reason


def test_an_engine_that_only_cannot_tell_its_features_is_available(package):
    found = package("", "print(made_engine.no_such_function())")
    assert (found.available, found.features, found.reason) == (True, (), None)


def test_a_slow_machine_is_no_reason_to_refuse_jobs(package, monkeypatch):
    monkeypatch.setattr(packages, "CHILD_TIMEOUT_S", 0.5)
    found = package("import time; time.sleep(60)")
    assert (found.available, found.features) == (True, ())


def test_without_a_question_no_process_is_started(package, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", None)
    assert package("", None).available
