"""Makes prompts of a known length for context sweeps, out of words that are one token each.

A campaign file asks for prompts of 128, 512, ... tokens, whatever the model. Each of these words
is one token in every vocabulary that was looked at, at the start of a text and after a space: those
of Llama 2, Llama 3, Gemma 3, Qwen 3, DeepSeek V3, GPT-4o and SmolLM2. So N words are N tokens, and
one more where the tokenizer begins a text with a token of its own. What an engine counted is what
its trials record; where a vocabulary splits a word after all, that shows there.
"""

WORDS = tuple(
    """
    time year people way day man thing woman life child world school state family student group
    country problem hand part place case week company system program question work night point home
    water room mother area money story fact month lot right study book eye job word business issue
    side kind head house service friend father power hour game line end member law car city name
    team idea body information back parent face level office door health person art war history
    party result change reason research girl boy moment air
    """.split()  # noqa: SIM905 - as a list it would take a page
)
MAX_PROMPT_TOKENS = 32_768
"""So many of the words are as long as a prompt may be, about."""


def prompt_of(tokens: int) -> str:
    """Return a prompt of so many tokens, the same every time.

    Prompts of different lengths have no beginning in common beyond a word: an engine that keeps
    what it has read must not find a shorter prompt in a longer one.
    """
    # As the number of words is prime, every stride goes through all of them.
    stride = 1 + tokens // len(WORDS) % (len(WORDS) - 1)
    return " ".join(WORDS[(tokens + number * stride) % len(WORDS)] for number in range(tokens))
