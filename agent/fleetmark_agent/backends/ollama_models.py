"""How a model becomes known to an Ollama server: imported from our file, or there by its name."""

import hashlib
import re
from pathlib import Path

from fleetmark_agent.backends.ollama_service import Service
from fleetmark_protocol.errors import BackendUnavailable, ModelNotFound, ModelRejected

Details = dict[str, str | int | float | bool]

_LAYER = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


def known_model(service: Service, model: Path) -> tuple[str, Details]:
    """Return the name of a model at the server, imported if need be, and what it says of it.

    Args:
        service: the server.
        model: a file; a relative path is the name of a model that the server has.

    Raises:
        ModelNotFound: no such file, or no model of this name.
        ModelRejected: the server cannot read the file.
        BackendUnavailable: a name, but the server is one of ours, which has nothing of its own.
        BackendCrashed, BackendError: see `Service.typed_errors`.
    """
    if not model.is_absolute():
        return str(model), _named(service, str(model))
    if not model.is_file():
        raise ModelNotFound(f"there is no file {model}")
    with model.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    name = f"fleetmark-{digest[:12]}"
    details = _imported(service, name, digest)
    if details is None:
        _import(service, model, name, digest)
        details = _imported(service, name, digest) or {}
    return name, {"ollama_model": name, **details}


def is_named(name: str, full_name: str) -> bool:
    """Whether a name means a model as the server lists it, with its tag; pure."""
    return full_name in (name, f"{name}:latest")


def template_for(digest: str) -> str:
    """Return the template that a model of ours is made with: no wrapping, and where it is from.

    Since 0.30 Ollama copies a GGUF file tensor by tensor as it imports it, so that the digest of
    what it keeps no longer tells which file that was: the comment does.
    """
    return f"{{{{/* sha256:{digest} */}}}}{{{{ .Prompt }}}}"


def _named(service: Service, name: str) -> Details:
    if service.own:
        raise BackendUnavailable(
            f"{name!r} is to be found in an Ollama's own library, and none is running",
            hint="start it (`ollama serve`), and let ollama.serve be `auto` or `never`",
        )
    with service.typed_errors():
        listed = service.client.list().models
    for one in listed:
        if one.model and is_named(name, one.model):
            quantization = one.details.quantization_level if one.details else None
            return {
                "ollama_model": one.model,
                "ollama_digest": one.digest or "",
                "quantization": quantization or "",
                "model_bytes": int(one.size or 0),
            }
    raise ModelNotFound(
        f"the Ollama at {service.url} has no model {name!r}", hint=f"`ollama pull {name}` gets it"
    )


def _imported(service: Service, name: str, digest: str) -> Details | None:
    """Return what is known of a model of ours; None where it is not there, or not this one."""
    try:
        with service.typed_errors():
            shown = service.client.show(name)
    except ModelNotFound:
        return None
    if digest not in (shown.template or ""):
        return None
    layer = _LAYER.search(shown.modelfile or "")
    if layer is None:
        return {}
    return {"ollama_layer_sha256": layer[1], "rewritten_by_ollama": layer[1] != digest}


def _import(service: Service, model: Path, name: str, digest: str) -> None:
    import ollama

    with service.typed_errors():
        try:
            if service.models_dir is None:
                service.client.create_blob(model)
            else:
                _link(service.models_dir, model, digest)
            service.client.create(
                model=name, files={"model.gguf": f"sha256:{digest}"}, template=template_for(digest)
            )
        except ollama.ResponseError as error:
            if "neither" in error.error:
                raise ModelRejected(
                    f"Ollama {service.version} cannot import a file by its digest",
                    hint="Ollama 0.5.5 or later can",
                ) from error
            raise service.load_failed(model, error) from error


def _link(models_dir: Path, model: Path, digest: str) -> None:
    """Put our file among the server's blobs without copying it."""
    blob = models_dir / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        # One may be there that points to a file which is gone.
        blob.unlink(missing_ok=True)
        blob.symlink_to(model.resolve())
