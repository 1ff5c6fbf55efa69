"""What cannot run is REJECTED before it starts, with words that a person understands.

Each on a real agent, told over a real broker; only the program for another processor is made up.
"""

import json
import platform

import gguf
import numpy as np
import pytest

from behaviour import Records, jobs, started_by
from engines import MODEL_REF, MODEL_SHA256, backends_here
from fakes.fake_model import write_llama, write_model
from fleet import Fleet
from processors import AARCH64, not_run_here, write_elf
from servers import Mosquitto

pytestmark = pytest.mark.integration


def write_thirsty_model(file):
    """Small, but each token of its context would take gigabytes."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_key_length(2**28)
    writer.add_value_length(2**28)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rejections")
    broker = Mosquitto(directory).start()
    made = Fleet(directory, broker)
    models = directory / "models"
    models.mkdir()
    write_llama(models / "unknown.gguf", architecture="nobody_knows")
    write_llama(models / "qwen2.gguf", architecture="qwen2")
    write_thirsty_model(models / "thirsty.gguf")
    write_model(models / "changed.gguf")
    write_elf(directory / "llama-server", not_run_here() or AARCH64)
    made.start_collector()
    made.start_agent(
        "pi-sim",
        f"[models]\ndir = '{models}'\nallow_sources = ['path:']\n"
        "[runner]\n"
        "allow_backends = ['xllamacpp', 'llama_cpp', 'ctransformers', 'transformers',"
        " 'llama_server', 'nonsense']\n"
        f"[engines.llama_server]\nexecutable = '{directory / 'llama-server'}'\n",
    )
    made.wait_for_devices("pi-sim")
    yield made
    made.close()
    broker.kill()


def rejection(fleet, backend="xllamacpp", model=None, **options):
    """Run a campaign of one job; return its failure, and what the operator was shown."""
    matrix = {
        "backend": [backend],
        "model": [{"name": "m", "ref": "path:changed.gguf", **(model or {})}],
        "options": {"threads": 1, "context_tokens": 256, **options},
    }
    run = fleet.cli("campaign", "run", str(fleet.write_campaign(matrix=matrix)))
    assert run.returncode == 1, run.stdout + run.stderr
    campaign_id = str(fleet.status()["campaign_id"])
    (job,) = jobs(fleet, campaign_id)
    assert str(job.state) == "REJECTED", job
    records = Records(fleet, campaign_id)
    assert records.begun() == []
    assert records.loads == records.trials == []
    assert started_by(fleet) == {}
    shown = fleet.cli("job", "show", job.job_id)
    said = " ".join(shown.stdout.split())
    assert job.failure.code in said
    return job.failure, said


def test_a_model_that_does_not_fit_says_what_it_needs_and_what_is_free(fleet):
    failure, said = rejection(fleet, model={"ref": "path:thirsty.gguf"})
    assert failure.code == "MODEL_TOO_LARGE"
    assert "does not fit in memory: needs 2199" in failure.message
    assert " GB free" in failure.message
    assert "does not fit in memory" in said


def test_a_backend_that_is_not_installed_says_so(fleet):
    failure, said = rejection(fleet, backend="nonsense")
    assert failure.code == "BACKEND_UNAVAILABLE"
    assert "nonsense" in said


def test_a_source_that_is_not_allowed_names_it_and_who_may_allow_it(fleet):
    failure, _ = rejection(fleet, model={"ref": MODEL_REF, "sha256": MODEL_SHA256})
    assert failure.code == "SOURCE_NOT_ALLOWED"
    assert "pypi://" in failure.message
    assert "models.allow_sources" in failure.message


def test_a_backend_that_the_owner_does_not_allow_names_the_setting(fleet):
    failure, _ = rejection(fleet, backend="ollama")
    assert failure.code == "SOURCE_NOT_ALLOWED"
    assert "runner.allow_backends" in failure.message


@pytest.mark.parametrize("backend", backends_here())
def test_a_model_of_an_architecture_that_the_engine_does_not_run_is_known_before_a_load(
    fleet, backend
):
    failure, said = rejection(fleet, backend=backend, model={"ref": "path:unknown.gguf"})
    assert failure.code == "MODEL_REJECTED"
    assert f"'nobody_knows', which {backend}" in failure.message
    assert "does not run" in said


def test_an_old_engine_refuses_a_newer_architecture_before_it_starts(fleet):
    pytest.importorskip("ctransformers", exc_type=ImportError)
    failure, _ = rejection(fleet, backend="ctransformers", model={"ref": "path:qwen2.gguf"})
    assert failure.code == "MODEL_REJECTED"
    assert "qwen2" in failure.message


def test_transformers_refuses_a_gguf_file_that_it_would_not_understand(fleet):
    pytest.importorskip("transformers", exc_type=ImportError)
    failure, _ = rejection(fleet, backend="transformers", model={"ref": "path:unknown.gguf"})
    assert failure.code == "MODEL_REJECTED"
    assert "'nobody_knows', which transformers" in failure.message


def test_a_program_for_another_processor_says_for_which_one(fleet):
    other = not_run_here()
    if other is None:
        pytest.skip("an emulator runs the programs of every other processor here (binfmt_misc)")
    failure, _ = rejection(fleet, backend="llama_server")
    assert failure.code == "BACKEND_UNAVAILABLE"
    assert f"built for {other.name}, and this machine is {platform.machine()}" in failure.message
    # Said as well before anybody asks.
    (device,) = json.loads(fleet.cli("devices", "--json").stdout)
    (told,) = [one for one in device["backends"] if one["name"] == "llama_server"]
    assert not told["available"]
    assert other.name in told["reason"]
