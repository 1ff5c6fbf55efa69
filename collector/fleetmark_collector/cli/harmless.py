"""A console that draws what we draw and shows what devices say: nothing of theirs is obeyed."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


class HarmlessConsole(Console):
    """The library's console; escapes, bells and the like within texts become visible marks."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is drawn; rich's own control codes are segments apart, and stay."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


def plain(text: str) -> str:
    """Return a text with nothing but visible characters and the ends of its lines."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)
