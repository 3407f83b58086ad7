"""The stream of one labeler: a websocket whose address somebody else has chosen."""

from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import ClientConnection, connect

from actors.outbound import Outbound, OutboundError
from actors.upstream import CLOSE_SECONDS, MAX_QUEUE, Deliver, End, Ending, Relay

KIND: Final = "labeler"
"""What the connections are counted as."""


@dataclass(frozen=True)
class LabelStream(Relay):
    """Connects by `outbound`, which looks where an address leads."""

    outbound: Outbound = field(kw_only=True)

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        """See `Upstream`."""
        try:
            return await super().read(cursor, deliver)
        except OutboundError as error:
            return Ending(End.UNREACHABLE, str(error), error.retry_after)

    async def _open(self, cursor: int | None) -> ClientConnection:
        socket = await self.outbound.dial(self.address, kind=KIND)
        secure = self.address.startswith("wss:")
        try:
            return await connect(
                self.address if cursor is None else f"{self.address}?cursor={cursor}",
                sock=socket,
                ssl=self.outbound.tls if secure else None,
                compression=None,
                max_size=self.max_frame_bytes,
                max_queue=MAX_QUEUE,
                open_timeout=self.open_seconds,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,
                proxy=None,
                user_agent_header=self.user_agent,
            )
        except BaseException:
            socket.close()
            raise
