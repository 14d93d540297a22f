"""Every admin request, for an admin and an operator: good, with a field missing or wrong, about something unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from coordinator.config import Settings
from coordinator.stats.capacity import MEASURED_CAPACITY
from coordinator.wire import admin as wire
from coordinator.wire.admin import activity, buckets, clients, items, nodes, notices, results, services, system, tokens
from coordinator.wire.codec import tag_of
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server


@dataclass(frozen=True)
class Row:
    """One request: its good fields, and for each fault the fields that change, and the answer.

    `needs` are the fields whose absence is `bad_message`; `unknown` names something that does not exist, and is
    answered as `unknown_is` says (None: with `ok`, since a list of nothing is a list).
    """

    good: Message
    has: set[str]
    needs: tuple[str, ...] = ()
    wrong: Message = field(default_factory=dict)
    unknown: Message | None = None
    unknown_is: str | None = "not_found"


LISTED = {"rows", "next"}
SERVICE = {"service", "plugin", "title", "state", "settings"}
NO_BUCKET = str(uuid4())
SCHEMA = {"type": "object"}

# "$bucket", "$token", "$notice" and "$invalidation" are replaced by those of the test.
TABLE: dict[type[Any], Row] = {
    services.ServiceList: Row({}, LISTED, wrong={"limit": 0}),
    services.ServicePlugins: Row({}, LISTED, wrong={"limit": 0}),
    services.ServiceShow: Row(
        {"service": "dm_check"}, SERVICE | {"counts"}, ("service",), {"service": 5}, {"service": "nothing"}
    ),
    services.ServiceAdd: Row(
        {"service": "links", "plugin": "generic", "settings": {"result_schema": SCHEMA}},
        SERVICE,
        ("service", "plugin"),
        {"service": "no name"},
        {"plugin": "nothing"},
    ),
    services.ServiceConfigure: Row(
        {"service": "dm_check", "settings": {"bucket_size": 9}},
        SERVICE,
        ("service", "settings"),
        {"settings": {"bucket_size": 0}},
        {"service": "nothing"},
    ),
    **{
        one: Row({"service": "dm_check"}, SERVICE, ("service",), {"service": None}, {"service": "nothing"})
        for one in (services.ServicePause, services.ServiceResume, services.ServiceRevoke, services.ServiceRestore)
    },
    items.ItemAdd: Row(
        {"items": [{"key": "new"}]},
        {"added", "known", "refused"},
        ("items",),
        {"priority": 201},
        {"services": ["nothing"]},
        "unknown_service",
    ),
    items.ItemPrioritize: Row(
        {"keys": ["account0"], "service": "dm_check"},
        {"prioritized", "unknown"},
        ("keys", "service"),
        {"keys": []},
        {"service": "nothing"},
    ),
    items.ItemDelete: Row({"keys": ["account1"]}, {"deleted", "unknown"}, ("keys",), {"keys": "account1"}),
    items.ItemList: Row({"prefix": "account"}, LISTED, wrong={"state": "done"}, unknown={"service": "nothing"}),
    items.ItemWaiting: Row({"service": "dm_check"}, LISTED, ("service",), {"limit": 1001}, {"service": "nothing"}),
    items.ItemShow: Row(
        {"key": "account0"}, {"item", "key", "attributes", "services"}, ("key",), {"key": 5}, {"key": "nobody"}
    ),
    items.ItemQuarantined: Row({}, LISTED, wrong={"after": 5}, unknown={"service": "nothing"}),
    items.ItemRetry: Row(
        {"keys": ["account0"], "service": "dm_check"},
        {"retried", "unknown"},
        ("keys", "service"),
        {"keys": [5]},
        {"service": "nothing"},
    ),
    buckets.BucketList: Row({}, LISTED, wrong={"state": "lost"}, unknown={"service": "nothing"}),
    buckets.BucketShow: Row(
        {"bucket_id": "$bucket"},
        {"bucket_id", "service", "state", "client_id", "claim", "attempts", "remaining", "items"},
        ("bucket_id",),
        {"bucket_id": 5},
        {"bucket_id": NO_BUCKET},
    ),
    buckets.BucketRelease: Row(
        {"bucket_id": "$bucket"}, {"released"}, ("bucket_id",), {"bucket_id": None}, {"bucket_id": NO_BUCKET}
    ),
    results.ResultList: Row({"service": "dm_check"}, LISTED, ("service",), {"since": "late"}, {"service": "nothing"}),
    results.ResultExport: Row(
        {"service": "dm_check", "format": "csv"},
        LISTED,
        ("service", "format"),
        {"format": "xml"},
        {"service": "nothing"},
    ),
    results.ResultChanges: Row(
        {"service": "dm_check"}, LISTED | {"more"}, ("service",), {"limit": 0}, {"service": "nothing"}
    ),
    results.ResultInvalidations: Row({}, LISTED, wrong={"after": "x"}),
    results.ResultInvalidate: Row(
        {"client_id": "volunteer", "dry_run": True, "requeue": True},
        {"count", "invalidation_id"},
        ("dry_run", "requeue"),
        {"until": "late"},
        {"client_id": "nobody"},
    ),
    results.ResultReinstate: Row(
        {"invalidation_id": "$invalidation"},
        {"count"},
        ("invalidation_id",),
        {"invalidation_id": "7"},
        {"invalidation_id": 4711},
    ),
    clients.ClientList: Row({}, LISTED, wrong={"state": "lost"}, unknown={"service": "nothing"}),
    clients.ClientShow: Row(
        {"client_id": "volunteer"},
        {"client_id", "screen_name", "state", "connected", "health", "services"},
        ("client_id",),
        {"client_id": ""},
        {"client_id": "nobody"},
    ),
    clients.ClientDeactivate: Row(
        {"client_id": "volunteer", "service": "dm_check"},
        {"deactivated", "released"},
        ("client_id",),
        {"client_id": "x" * 65},
        {"client_id": "nobody"},
    ),
    clients.ClientActivate: Row(
        {"client_id": "volunteer"}, {"activated"}, ("client_id",), {"service": 5}, {"client_id": "nobody"}
    ),
    clients.ClientForgetSecret: Row(
        {"client_id": "volunteer"}, {"forgotten", "released"}, ("client_id",), {"client_id": 5}, {"client_id": "nobody"}
    ),
    clients.ClientExport: Row(
        {"client_id": "volunteer"}, LISTED, ("client_id",), {"limit": 0}, {"client_id": "nobody"}
    ),
    clients.ClientErase: Row(
        {"client_id": "volunteer"}, {"erased"}, ("client_id",), {"client_id": 5}, {"client_id": "nobody"}
    ),
    notices.NoticeSend: Row({"text": "hello"}, {"notice_id"}, ("text",), {"level": "loud"}, {"service": "nothing"}),
    notices.NoticeList: Row({}, LISTED, wrong={"limit": 0}),
    notices.NoticeWithdraw: Row(
        {"notice_id": "$notice"}, {"withdrawn"}, ("notice_id",), {"notice_id": 5}, {"notice_id": "none"}
    ),
    tokens.TokenIssue: Row(
        {"role": "viewer", "label": "screen"},
        {"token_id", "token", "role", "label"},
        ("role", "label"),
        {"role": "king"},
    ),
    tokens.TokenList: Row({}, LISTED, wrong={"limit": "all"}),
    tokens.TokenRevoke: Row({"token_id": "$token"}, {"revoked"}, ("token_id",), {"token_id": 5}, {"token_id": "none"}),
    activity.ActivityList: Row({}, LISTED, wrong={"since": "late"}, unknown={"client_id": "nobody"}, unknown_is=None),
    nodes.NodeList: Row({}, LISTED, wrong={"after": "x"}),
    nodes.NodeDrain: Row({"node": "second"}, {"draining"}, (), {"node": 5}, {"node": "nowhere"}),
    system.Stats: Row({}, {"services"}),
    system.LimitsShow: Row({}, {"limits", "carries"}),
    system.Health: Row({}, {"live", "ready", "database", "draining"}),
}

REQUESTS = [one for one in wire.ANSWERS if one is not wire.AdminHello]
roles = pytest.mark.parametrize("role", ["admin", "operator"])
requests = pytest.mark.parametrize("request_", REQUESTS, ids=tag_of)


def test_no_request_lacks_a_row() -> None:
    assert set(TABLE) == set(REQUESTS)


def may(role: str, request: type[Any]) -> bool:
    return role == "admin" or request not in wire.ADMIN_ONLY


def test_what_an_operator_may_not() -> None:
    assert {tag_of(one) for one in wire.ADMIN_ONLY} == {
        "token.issue",
        "token.list",
        "token.revoke",
        "item.delete",
        "service.add",
        "service.revoke",
        "service.restore",
        "client.forget_secret",
        "client.export",
        "client.erase",
        "node.drain",
    }


async def stage(server: Server, good: Message) -> Message:
    """Return the good fields, after making the things that they name."""
    if "$bucket" in good.values():
        peer = await server.volunteer("holder")
        return {"bucket_id": (await peer.bucket())["bucket_id"]}
    admin = await server.admin()
    if "$token" in good.values():
        return {"token_id": (await admin.ok("token.issue", role="viewer", label="x"))["token_id"]}
    if "$notice" in good.values():
        return {"notice_id": (await admin.ok("notice.send", text="x"))["notice_id"]}
    if "$invalidation" in good.values():
        done = await admin.ok("result.invalidate", service="dm_check", dry_run=False, requeue=False)
        return {"invalidation_id": done["invalidation_id"]}
    return good


@roles
@requests
async def test_each_request(
    start_server: StartServer, server: Server, admin: Admin, request_: type[Any], role: str
) -> None:
    row, tag = TABLE[request_], tag_of(request_)
    if "node" in row.good:
        await start_server(node_name=row.good["node"])
    await server.volunteer("volunteer")
    await admin.add(3)
    good = await stage(server, row.good)
    asker = await server.admin(role)

    for name in row.needs:
        fields = {key: value for key, value in good.items() if key != name}
        answer = await asker.ask_for(tag, **fields)
        assert (answer["type"], answer["code"]) == ("error", "bad_message"), (name, answer)
        assert answer["detail"]["path"].startswith("$")
    if row.wrong:
        expected = "bad_message" if shape_only(request_, {**good, **row.wrong}) or may(role, request_) else "forbidden"
        answer = await asker.ask_for(tag, **{**good, **row.wrong})
        assert (answer["type"], answer["code"]) == ("error", expected), answer
    assert await asker.refused(tag, **good, nonsense=1) == "unsupported"
    if row.unknown is not None:
        answer = await asker.ask_for(tag, **{**good, **row.unknown})
        expected_unknown = row.unknown_is if may(role, request_) else "forbidden"
        assert answer.get("code") == expected_unknown, answer
    answer = await asker.ask_for(tag, **good)
    if may(role, request_):
        assert answer["type"] == "ok", answer
        assert row.has <= answer.keys()
    else:
        assert answer["code"] == "forbidden"
    if tag not in ("stats", "limits", "health"):
        noted = (await admin.ok("activity.list", action=tag))["rows"]
        assert noted[0]["outcome"] == ("ok" if may(role, request_) else "forbidden")
        assert noted[0]["who"] == f"{role}:test {role}"


@pytest.mark.parametrize("role", ["admin", "operator"])
async def test_the_limits_tell_what_is_set_and_what_a_node_carries(start_server: StartServer, role: str) -> None:
    server = await start_server(max_sessions=50)
    told = await (await server.admin(role)).ok("limits")
    assert told["limits"]["max_sessions"] == 50
    assert msgspec.convert(told["carries"], system.Capacity) == MEASURED_CAPACITY
    assert told["carries"]["sessions"] == Settings.model_fields["max_sessions"].default
    assert told["carries"]["limited_by"].keys() < told["carries"].keys()


def shape_only(request: type[Any], fields: Message) -> bool:
    """Return whether the fields are refused for their shape, before the sender's rights are checked."""
    try:
        msgspec.convert({"type": tag_of(request), **fields}, request)
    except msgspec.ValidationError:
        return True
    return False


@pytest.mark.parametrize("role", ["viewer", "enrolment"])
async def test_other_tokens_do_not_open_the_channel(server: Server, role: str) -> None:
    peer = await Admin.open(f"{server.url}/v1/admin", server.stack)
    answer = await peer.ask_for("hello", protocol=1, token=await server.token(role))
    assert answer["code"] == "forbidden"
    assert await peer.close_code() == 4501


async def test_the_reason_of_a_deactivation_is_kept_and_shown(server: Server, admin: Admin) -> None:
    await server.volunteer("ada")
    await admin.ok("client.deactivate", client_id="ada", service="dm_check", reason="results disagree")
    (membership,) = (await admin.ok("client.show", client_id="ada"))["services"]
    assert (membership["inactive"], membership["inactive_reason"]) == ("admin", "results disagree")
    await admin.ok("client.activate", client_id="ada", service="dm_check")

    await admin.ok("client.deactivate", client_id="ada", reason="spam")
    (row,) = (await admin.ok("client.list"))["rows"]
    assert (row["state"], row["deactivated"]) == ("deactivated", "spam")
    assert (row["services"][0]["inactive"], row["services"][0]["inactive_reason"]) == (None, None)
    await admin.ok("client.activate", client_id="ada")
    assert (await admin.ok("client.show", client_id="ada"))["deactivated"] is None


async def test_plugins_are_listed_and_one_that_is_not_there_is_answered_with_what_to_do(admin: Admin) -> None:
    page = await admin.ok("service.plugins", limit=2)
    rest = await admin.ok("service.plugins", after=page["next"])
    rows = {row["plugin"]: row for row in (*page["rows"], *rest["rows"])}
    assert rest["next"] is None
    assert list(rows) == sorted(rows)
    assert rows["dm_check"]["services"] == ["dm_check"]
    assert rows["generic"]["services"] == []
    assert "result_schema" in rows["generic"]["settings"]
    assert "settings_schema" not in rows["generic"]
    described = {row["plugin"]: row for row in (await admin.ok("service.plugins", schemas=True))["rows"]}
    schema = described["generic"]["settings_schema"]
    assert schema["required"] == ["result_schema"]
    assert schema["properties"]["bucket_size"]["default"] == 180

    refusal = await admin.ask_for("service.add", service="mine", plugin="not_there")
    assert refusal["code"] == "not_found"
    assert "dm_check" in refusal["message"]
    assert "pip install" in refusal["message"]
