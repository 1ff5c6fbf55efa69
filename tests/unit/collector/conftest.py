"""Worlds for tests of the dispatcher; closed when the test is over."""

import pytest

from fakes.fake_fleet import FakeDevice, FakeWorld


@pytest.fixture
def make_world(tmp_path):
    worlds = []

    def make(*devices: FakeDevice) -> FakeWorld:
        worlds.append(FakeWorld(tmp_path, *devices))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
