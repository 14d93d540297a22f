"""What operators do from the dashboard, and what nobody can do to it."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from coordinator.serve.pages import CONTENT_SECURITY_POLICY
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.e2e.browser import Look
from tests.e2e.conftest import OpenLook
from tests.harness import Admin, Server
from tests.serve.tools import add_service, configure, value

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node whose buckets are small, with a service whose title would be markup."""
    await configure(database, bucket_size=5)
    await add_service(database, "hostile")
    async with database.connection() as db:
        await db.execute("UPDATE service SET title = $1 WHERE name = 'hostile'", HOSTILE)
    return await start_server(node_name="here")


async def as_role(look: Look, server: Server, role: str) -> None:
    """Give the page a token."""
    page = look.page
    await page.get_by_role("button", name="Token").click()
    await page.locator("input[type=password]").fill(await server.token(role))
    await page.get_by_role("button", name="Use this token").click()
    await page.locator("dialog").wait_for(state="detached")
    await look.live()


async def confirm(look: Look, name: str) -> None:
    """Press a button, look at what is asked back, and say yes."""
    page = look.page
    await page.get_by_role("button", name=name, exact=True).click()
    await page.get_by_role("heading", name=f"{name}?", exact=True).wait_for()
    assert await look.violations() == []
    await page.locator("dialog").get_by_role("button", name=name, exact=True).click()
    await page.locator("dialog").wait_for(state="detached")


async def test_an_operator_pauses_releases_and_deactivates(node: Server, open_look: OpenLook, admin: Admin) -> None:
    await admin.add(50, services=["dm_check"])
    holder = await node.volunteer("holder")
    bucket = await holder.bucket()
    look = await open_look(node, "services/dm_check")
    page = look.page
    await look.says("main", "active")
    assert await page.get_by_role("button", name="Pause service").count() == 0  # a viewer may not
    await as_role(look, node, "operator")

    await page.get_by_role("button", name="Pause service").click()
    await page.locator("dialog").get_by_role("button", name="Cancel").click()
    assert (await admin.ok("service.show", service="dm_check"))["state"] == "active"
    await confirm(look, "Pause service")
    await look.says(".toasts", "dm_check is paused")
    assert (await admin.ok("service.show", service="dm_check"))["state"] == "paused"
    await confirm(look, "Resume service")
    await look.says(".head-row .badge", "active")

    await look.go("buckets?state=claimed")
    await confirm(look, "Release")
    lost = await holder.push("service")
    while lost["type"] == "service":
        lost = await asyncio.wait_for(holder.pushes.get(), 10)
    assert (lost["type"], lost["bucket_id"]) == ("bucket_lost", bucket["bucket_id"])

    await look.go("clients/holder")
    await page.get_by_role("button", name="Deactivate client").click()
    await page.get_by_label("Reason").fill(HOSTILE)
    await page.locator("dialog").get_by_role("button", name="Deactivate client").click()
    assert await holder.close_code() == 4502
    await confirm(look, "Activate client")
    await confirm(look, "Deactivate here")
    await confirm(look, "Activate here")
    shown = await admin.ok("client.show", client_id="holder")
    assert (shown["state"], shown["services"][0]["active"]) == ("active", True)
    await look.go("nodes")
    await look.says("tbody tr", "here")
    assert await page.get_by_role("button", name="Drain").count() == 0  # only an admin may


async def test_an_admin_drains_a_node(node: Server, open_look: OpenLook) -> None:
    look = await open_look(node, "nodes")
    await as_role(look, node, "admin")
    await confirm(look, "Drain")
    await asyncio.wait_for(node.node.wait_until_stopped(), 30)


async def test_a_refusal_is_shown_and_nothing_is_done(node: Server, open_look: OpenLook, database: Database) -> None:
    look = await open_look(node, "services/dm_check")
    await as_role(look, node, "operator")
    await look.page.get_by_role("button", name="Pause service").click()
    async with database.connection() as db:
        await db.execute("UPDATE token SET revoked_at = now()")
    await look.page.locator("dialog").get_by_role("button", name="Pause service").click()
    await look.says("dialog [role=alert]", "token")
    assert await value(database, "SELECT state FROM service WHERE name = 'dm_check'") == "active"


async def test_hostile_names_are_text(node: Server, open_look: OpenLook, admin: Admin) -> None:
    await admin.ok("item.add", items=[{"key": HOSTILE}], services=["dm_check"])
    worker = await node.volunteer("worker")
    await worker.submit(await worker.bucket())
    await admin.ok("client.deactivate", client_id="worker", service="dm_check", reason=HOSTILE)
    look = await open_look(node, "clients/worker?tab=results")
    await look.says("tbody th", HOSTILE)
    await look.go("services")
    await look.says("tbody tr", HOSTILE)
    await look.go("services/hostile")
    await look.says(".head-row", HOSTILE)
    await look.go(f"clients?search={HOSTILE}")
    await look.says("main", "No client is like that")
    await look.go(f"services/{quote(HOSTILE, safe='')}")
    await look.says("main h1", HOSTILE)
    for place in ("", "events"):
        await look.go(place)
        await look.settled()
    assert "hacked" not in await look.page.title()
    assert await look.page.locator("main img, main script").count() == 0


async def test_nothing_inline_runs(server: Server, open_look: OpenLook) -> None:
    look = await open_look(server)
    await look.live()
    done = await look.page.evaluate(
        """async () => {
            const violations = [];
            document.addEventListener('securitypolicyviolation', event => violations.push(event.effectiveDirective));
            const tries = [
                () => { document.body.innerHTML += '<b>markup</b>'; },
                () => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';
                        document.body.append(s); },
                () => { const i = document.createElement('i'); i.setAttribute('onclick', 'window.hacked = 1');
                        document.body.append(i); i.click(); },
                () => { const b = document.createElement('b'); b.setAttribute('style', 'color: red');
                        document.body.append(b); },
                () => fetch('https://elsewhere.example/').catch(() => undefined),
            ];
            for (const one of tries) { try { await one(); } catch { } }
            await new Promise(resolve => setTimeout(resolve));
            return [violations.sort(), typeof window.hacked, document.querySelectorAll('b').length];
        }"""
    )
    assert done[1] == "undefined"
    assert {"connect-src", "require-trusted-types-for", "style-src-attr"} <= set(done[0]), done
    assert look.complaints
    look.complaints.clear()  # each refusal was also told to the console
    look.foreign.clear()  # the one that was tried


@pytest.mark.parametrize("path", ["/", "/assets/icon.svg"])
async def test_every_file_carries_the_headers(server: Server, path: str) -> None:
    def read() -> dict[str, str]:
        with urlopen(server.url.replace("ws://", "http://") + path, timeout=5) as answer:
            return {name.lower(): text for name, text in answer.headers.items()}

    headers = await asyncio.to_thread(read)
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


async def test_files_with_a_hash_are_kept_for_good(server: Server) -> None:
    def read(path: str) -> tuple[str, str]:
        with urlopen(server.url.replace("ws://", "http://") + path, timeout=5) as answer:
            return answer.read().decode(), answer.headers["Cache-Control"]

    page, _ = await asyncio.to_thread(read, "/")
    script = page.partition('src="')[2].partition('"')[0]
    assert await asyncio.to_thread(lambda: read(f"/{script}")[1]) == "public, max-age=31536000, immutable"
