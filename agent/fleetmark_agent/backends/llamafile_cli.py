"""A llamafile started for one prompt: its command line, its output as it comes, its own times."""

import codecs
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.backends.base import Completion, Token, check_length, load_failed
from fleetmark_agent.backends.llama_program import Flag, chosen, model_was_refused
from fleetmark_agent.backends.llamafile_program import Program
from fleetmark_agent.backends.serverprocess import ServerProcess
from fleetmark_protocol.errors import BackendCrashed, BackendError, PromptTooLong
from fleetmark_protocol.messages import Options

END_TIMEOUT_S = 60.0
"""From the end of its output to its own end: it frees its memory."""
READ_BYTES = 1 << 16

Version = tuple[int, ...]

FIRST: Version = (0, 5)
"""The first version whose one program is both a server and a command."""
ENDS_ITS_LINE: Version = (0, 6, 2)
"""From here on a newline that is no token's follows the last one."""
READS_ESCAPES: Version = (0, 8, 13)
"""From here on a backslash in a prompt means something unless it is told not to."""
WRAPS_PROMPTS: Version = (0, 10)
"""From here on the command wraps prompts in the model's chat template and tells no times: it does
not do what the other backends do, so it is not used."""

# The names before the colon have changed often, these have not.
_TIME = re.compile(
    r": +(?P<what>load|sample|prompt eval|eval) time = +(?P<ms>[\d.]+) ms(?: / +(?P<count>\d+))?"
)
_TOO_LONG = re.compile(r"prompt is too long \(\d+ tokens, max \d+\)")
_END_OF_TEXT = "[end of text]"


@dataclass(frozen=True)
class EngineTimes:
    """What llama.cpp's commands print at their end.

    Attributes:
        load_s: from the start to a loaded model, its own warm-up run included.
        prefill_s: evaluation of the prompt.
        decode_s: evaluation of what was generated.
        prompt_tokens: evaluated.
        output_tokens: generated.
    """

    load_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens: int
    output_tokens: int


def usable(version: Version | None) -> bool:
    """Whether a version has a command that does what the other backends do; pure."""
    return version is not None and FIRST <= version < WRAPS_PROMPTS


def parse_times(said: str) -> EngineTimes | None:
    """Read the last times that a command printed, of any generation; None if there are not all.

    All count the evaluations of one token, one less than were generated: the last is not
    evaluated. The older also count how often a token was chosen, which is the number itself.
    """
    found = {one["what"]: one for one in _TIME.finditer(said)}
    if not {"load", "prompt eval", "eval"} <= found.keys():
        return None
    chosen_tokens = found.get("sample")
    evaluated = int(found["eval"]["count"] or 0)
    return EngineTimes(
        load_s=float(found["load"]["ms"]) / 1e3,
        prefill_s=float(found["prompt eval"]["ms"]) / 1e3,
        decode_s=float(found["eval"]["ms"]) / 1e3,
        prompt_tokens=int(found["prompt eval"]["count"] or 0),
        output_tokens=int(chosen_tokens["count"]) if chosen_tokens else evaluated + 1,
    )


def arguments(
    known: frozenset[str],
    version: Version,
    weights: Path | None,
    prompt_file: Path,
    output_tokens: int,
    options: Options,
) -> list[str]:
    """Return the command line after the program's name; pure."""
    threads = None if options.threads is None else str(options.threads)
    wanted: list[Flag] = [
        (("--no-display-prompt", "--silent-prompt"), None),
        (("--simple-io",), None),
        (("--n-gpu-layers",), "0"),
        # Nothing but temperature shapes the distribution, as in the other backends.
        (("--repeat-penalty",), "1.0"),
        (("--top-k",), "0"),
        (("--top-p",), "1.0"),
        (("--min-p",), "0.0"),
        (("--tfs",), "1.0"),
        (("--typical",), "1.0"),
    ]
    if threads is not None:
        wanted += [(("--threads",), threads), (("--threads-batch",), threads)]
    if options.batch_tokens is not None:
        wanted.append((("--batch-size",), str(options.batch_tokens)))
    if options.ignore_eos:
        wanted.append((("--ignore-eos",), None))
    return [
        "--cli",
        *(() if weights is None else ("--model", str(weights))),
        # Not on the command line, where it could be taken for a flag and everybody could read it.
        *("--file", str(prompt_file)),
        *("--n-predict", str(output_tokens), "--ctx-size", str(options.context_tokens)),
        *("--temp", str(options.temperature), "--seed", str(options.seed)),
        *(("--no-escape",) if version >= READS_ESCAPES else ()),
        *chosen(wanted, known),
    ]


@dataclass(frozen=True)
class LlamafileCli:
    """A llamafile that is executed anew for each prompt.

    Attributes:
        program: trusted.
        weights: None where it has them inside.
        version: of the program.
        known: flags of this version.
        env: environment of the program.
        scratch: directory of this process's own.
    """

    program: Program
    weights: Path | None
    version: Version
    known: frozenset[str]
    env: Mapping[str, str]
    scratch: Path

    def generate(
        self, prompt: str, output_tokens: int, options: Options
    ) -> Iterator[Token | Completion]:
        """Start, load, generate, end; see `Backend.generate`.

        Raises:
            ModelRejected: it cannot read the model.
        """
        if not prompt:
            check_length(0, output_tokens, options.context_tokens)
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            prompt_file = Path(directory) / "prompt"
            # It takes one newline off the end of a file.
            prompt_file.write_text(prompt + "\n", "utf-8", newline="")
            process = ServerProcess(
                [
                    *self.program.command,
                    *arguments(
                        self.known,
                        self.version,
                        self.weights,
                        prompt_file,
                        output_tokens,
                        options,
                    ),
                ],
                env=self.env,
                pass_fds=(self.program.fd,),
                # It leaves a log where it is started.
                cwd=Path(directory),
                name=self.program.name,
                pipe_stdout=True,
            )
            try:
                yield from self._tokens(process.stdout.fileno())
                code = process.wait(END_TIMEOUT_S)
                said = process.said()
                if code != 0:
                    raise self._failed(process, said)
                yield _completion(said, output_tokens, options)
            finally:
                process.stop()

    def _tokens(self, fd: int) -> Iterator[Token]:
        """Give each piece of the output with its time.

        A newline is held back until more comes: the last one is the program's own, and when it
        comes says nothing about a token.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held: Token | None = None
        while piece := os.read(fd, READ_BYTES):
            time_ns = time.perf_counter_ns()
            if held is not None:
                yield held
                held = None
            text = decoder.decode(piece)
            if self.version >= ENDS_ITS_LINE and text.endswith("\n"):
                text = text[:-1]
                held = Token(time_ns, "\n", count=0 if text else 1)
            if text or held is None:
                yield Token(time_ns, text)

    def _failed(self, process: ServerProcess, said: str) -> BackendError:
        too_long = _TOO_LONG.search(said)
        if too_long is not None:
            return PromptTooLong(f"{self.program.name}: {too_long.group()}")
        error = process.why_it_ended()
        if isinstance(error, BackendCrashed) and model_was_refused(said):
            return load_failed(self.weights or Path(self.program.name), error)
        return error


def _completion(said: str, asked: int, options: Options) -> Completion:
    """Read what the program said at its end.

    Raises:
        BackendError: it told no times, without which nobody knows how many tokens there were.
        PromptTooLong: it ran over its context, which it does by forgetting the beginning.
    """
    times = parse_times(said)
    if times is None:
        raise BackendError(
            "the llamafile printed no times, so its tokens cannot be counted",
            hint="run it as a server: options.start = warm",
        )
    check_length(times.prompt_tokens, asked, options.context_tokens)
    ended = _END_OF_TEXT in said or times.output_tokens < asked
    return Completion(
        prompt_tokens=times.prompt_tokens,
        prompt_tokens_evaluated=times.prompt_tokens,
        output_tokens=min(times.output_tokens, asked),
        stop_reason="eos" if ended else "length",
        engine_load_s=times.load_s,
        engine_prefill_s=times.prefill_s,
        engine_decode_s=times.decode_s,
        load_included=True,
    )
