"""Requests to the network: one client, with limits on all that others can make of it.

async with Outbound(settings.network, count=counting(metrics, ("plc",))) as outbound:
    response = await outbound.get(url, limit_bytes=65536, seconds=10.0, kind="plc")
"""

from actors.outbound.answer import Answer
from actors.outbound.client import Outbound, Response
from actors.outbound.counting import counting
from actors.outbound.errors import Kind, OutboundError

__all__ = ["Answer", "Kind", "Outbound", "OutboundError", "Response", "counting"]
