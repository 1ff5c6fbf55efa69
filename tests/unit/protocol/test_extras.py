"""A command whose packages are not installed says so."""

import pytest

from fleetmark_protocol.extras import needed


def test_a_missing_package_ends_the_command_with_what_to_install():
    with pytest.raises(SystemExit) as caught, needed("collector"):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy.stats")
    said = str(caught.value)
    assert "needs fleetmark[collector]" in said
    assert "scipy is missing" in said
    assert "pip install 'fleetmark[collector]'" in said


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module", name="fleetmark_agent.gone"),
        ModuleNotFoundError("no name"),
        ImportError("cannot import name 'x' from 'y'", name="y"),
    ],
    ids=str,
)
def test_a_mistake_of_ours_is_not_taken_for_a_missing_package(error):
    with pytest.raises(ImportError), needed("agent"):
        raise error
