"""A frame is a message of its channel or it is refused, whatever comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.wire import admin, client, stats
from coordinator.wire.codec import Codec, Undecodable, encode, error_frame
from coordinator.wire.frames import Request
from tests.fuzz.frames import SETTINGS, frames

CODECS: dict[str, Codec[Request]] = {
    "client": Codec(*client.ANSWERS, deep=client.Submit),
    "admin": Codec(*admin.ANSWERS),
    "stats": Codec(*stats.ANSWERS),
}


@pytest.mark.parametrize("channel", CODECS)
@SETTINGS
@given(data=st.data())
def test_codec(channel: str, data: st.DataObject) -> None:
    codec = CODECS[channel]
    text = data.draw(frames(list(codec.types.values()))).decode("utf-8", "surrogateescape")
    refusal = None
    try:
        message = codec.decode(text)
    except Undecodable as undecodable:
        refusal = undecodable
    if refusal is None:
        assert codec.decode(encode(message).decode()) == message
    else:
        assert json.loads(error_frame(refusal.error, refusal.ref))["type"] == "error"
