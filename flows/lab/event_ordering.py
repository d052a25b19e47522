"""In which order the server takes events, for a server that is restarted now and then.

Prefect's server holds an event back until it has seen the one that it follows, for up to 15 minutes. What it had seen
before a restart it has forgotten. So after one, the automations would not see what runs under way do until then: a
crash would be resumed a quarter of an hour late, perhaps in the middle of a later try.
"""

from datetime import UTC, datetime
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

_STARTED = datetime.now(UTC)
_UNIX_MILLISECONDS_AT_BIT = 80


class CausalOrdering(memory.CausalOrdering):
    """Prefect's own order in memory, but nothing waits for an event from before this server's start."""

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Return once the event may be taken.

        Raises:
            EventArrivedEarly: the event that it follows is still on its way.
        """
        if event.follows and _created(event.follows) < _STARTED:
            return
        await super().wait_for_leader(event)


def _created(event: UUID) -> datetime:
    """When an event came to be; Prefect's ids begin with that time (UUID version 7)."""
    if event.version != 7:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp((event.int >> _UNIX_MILLISECONDS_AT_BIT) / 1000, UTC)
