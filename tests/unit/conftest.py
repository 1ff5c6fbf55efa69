"""Files of unit tests lie in memory where they can: a disk's syncs cost more than all the rest."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it is made by mkdtemp
ENOUGH_BYTES = 2**30


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for a module's tests; without enough memory on the disk, as ever."""
    # Pytest's own, which outlives the module, must be found before `tempfile` is turned.
    tmp_path_factory.getbasetemp()
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ENOUGH_BYTES:
        yield tmp_path_factory.mktemp("unit")
        return
    made = Path(tempfile.mkdtemp(prefix="fleetmark-unit-", dir=MEMORY))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def temporary_files_go_there(room: Path) -> Iterator[None]:
    """Have `tempfile` use it, too: a test of many examples makes a directory for each."""
    before, tempfile.tempdir = tempfile.tempdir, str(room)
    yield
    tempfile.tempdir = before


@pytest.fixture
def tmp_path(room: Path) -> Iterator[Path]:
    """As pytest's own, but there; gone when the test is over."""
    made = Path(tempfile.mkdtemp(dir=room))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where files are files, for tests of what the kernel keeps of them in memory."""
    return tmp_path_factory.mktemp("on-disk")
