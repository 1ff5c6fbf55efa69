"""Who is enrolled, and how that goes, without a CA and a broker."""

from fleetmark_collector.fleet.kits import Kit
from fleetmark_protocol.errors import ConfigError


class FakeKits:
    """What a test says of every device; those of `refused` cannot be enrolled."""

    def __init__(
        self,
        kit: Kit | None = None,
        *,
        taken: bool = False,
        due: bool = False,
        refused: tuple[str, ...] = (),
        todo: str | None = None,
    ) -> None:
        self.kit, self.is_taken, self.is_due = kit, taken, due
        self.refused, self.todo = refused, todo
        self.events: list[str] = []
        """Who was made, and when the broker was told."""

    def taken(self, device: str) -> bool:
        return self.is_taken

    def due(self, device: str) -> bool:
        return self.is_due

    def find(self, device: str) -> Kit | None:
        return self.kit

    def make(self, device: str, tags: tuple[str, ...]) -> Kit:
        if device in self.refused:
            raise ConfigError(f"no room for {device}")
        self.events.append(device)
        return Kit(device, {"agent.toml": f'device_id = "{device}"\n'.encode()})

    def publish(self) -> str | None:
        self.events.append("published")
        return self.todo
