"""Operations of operators and admins from the dashboard, and attacks on it that must fail."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from coordinator.serve.pages import CONTENT_SECURITY_POLICY
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.e2e.browser import Tab
from tests.e2e.conftest import OpenTab
from tests.harness import Server
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


async def as_role(tab: Tab, server: Server, role: str) -> None:
    """Give the page a token of a role."""
    page = tab.page
    await page.get_by_role("button", name="Account").click()
    await page.locator("input[type=password]").fill(await server.token(role))
    await page.get_by_role("button", name="Use this token").click()
    await page.locator("dialog").wait_for(state="detached")
    await tab.wait_until_live()


async def confirm(tab: Tab, name: str) -> None:
    """Press a button, check the dialog that it opens for accessibility, and confirm."""
    page = tab.page
    await page.get_by_role("button", name=name, exact=True).click()
    await page.get_by_role("heading", name=f"{name}?", exact=True).wait_for()
    assert await tab.violations() == []
    await page.locator("dialog").get_by_role("button", name=name, exact=True).click()
    await page.locator("dialog").wait_for(state="detached")


@pytest.mark.long
async def test_an_operator_pauses_releases_and_deactivates(node: Server, open_tab: OpenTab) -> None:
    admin = await node.admin()
    await admin.add(50, services=["dm_check"])
    holder = await node.volunteer("holder")
    bucket = await holder.bucket()
    tab = await open_tab(node, "services/dm_check")
    page = tab.page
    await tab.wait_for_text("main", "active")
    assert await page.get_by_role("button", name="Pause service").count() == 0  # a viewer may not
    await as_role(tab, node, "operator")

    await page.get_by_role("button", name="Pause service").click()
    await page.locator("dialog").get_by_role("button", name="Cancel").click()
    assert (await admin.ok("service.show", service="dm_check"))["state"] == "active"
    await confirm(tab, "Pause service")
    await tab.wait_for_text(".toasts", "dm_check is paused")
    assert (await admin.ok("service.show", service="dm_check"))["state"] == "paused"
    await confirm(tab, "Resume service")
    await tab.wait_for_text(".head-row .badge", "active")

    await tab.open("buckets?state=claimed")
    await confirm(tab, "Release")
    lost = await holder.push("service")
    while lost["type"] == "service":
        lost = await within(holder.pushes.get(), 10)
    assert (lost["type"], lost["bucket_id"]) == ("bucket_lost", bucket["bucket_id"])

    await tab.open("clients/holder")
    await page.get_by_role("button", name="Deactivate client").click()
    await page.get_by_label("Reason").fill(HOSTILE)
    await page.locator("dialog").get_by_role("button", name="Deactivate client").click()
    assert await holder.close_code() == 4502
    await confirm(tab, "Activate client")
    await confirm(tab, "Deactivate here")
    await confirm(tab, "Activate here")
    shown = await admin.ok("client.show", client_id="holder")
    assert (shown["state"], shown["services"][0]["active"]) == ("active", True)
    await tab.open("nodes")
    await tab.wait_for_text("tbody tr", "here")
    assert await page.get_by_role("button", name="Drain").count() == 0  # only an admin may


async def test_an_admin_drains_a_node(node: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(node, "nodes")
    await as_role(tab, node, "admin")
    await confirm(tab, "Drain")
    await within(node.node.wait_until_stopped(), 30)


async def test_a_refusal_is_shown_and_nothing_is_done(node: Server, open_tab: OpenTab, database: Database) -> None:
    tab = await open_tab(node, "services/dm_check")
    await as_role(tab, node, "operator")
    await tab.page.get_by_role("button", name="Pause service").click()
    async with database.connection() as db:
        await db.execute("UPDATE token SET role = 'viewer'")  # a revoked one would end the page's own session
    await tab.page.locator("dialog").get_by_role("button", name="Pause service").click()
    await tab.wait_for_text("dialog [role=alert]", "token")
    assert await value(database, "SELECT state FROM service WHERE name = 'dm_check'") == "active"


async def test_hostile_names_are_text(node: Server, open_tab: OpenTab) -> None:
    admin = await node.admin()
    await admin.ok("item.add", items=[{"key": HOSTILE}], services=["dm_check"])
    worker = await node.volunteer("worker")
    await worker.submit(await worker.bucket())
    await admin.ok("client.deactivate", client_id="worker", service="dm_check", reason=HOSTILE)
    tab = await open_tab(node, "clients/worker?tab=results")
    await tab.wait_for_text("tbody th", HOSTILE)
    await tab.open("services")
    await tab.wait_for_text("tbody tr", HOSTILE)
    await tab.open("services/hostile")
    await tab.wait_for_text(".head-row", HOSTILE)
    await tab.open(f"clients?search={HOSTILE}")
    await tab.wait_for_text("main", "No client is like that")
    await tab.open(f"services/{quote(HOSTILE, safe='')}")
    await tab.wait_for_text("main h1", HOSTILE)
    for address in ("", "events"):
        await tab.open(address)
        await tab.wait_until_loaded()
    assert "hacked" not in await tab.page.title()
    assert await tab.page.locator("main img, main script").count() == 0


async def test_what_is_unseen_or_turns_the_direction_is_written_out(node: Server, open_tab: OpenTab) -> None:
    unseen, written = "wall\u202eegap\u200b\x1b[2J", "wall\\u202eegap\\u200b\\x1b[2J"
    admin = await node.admin()
    await admin.ok("token.issue", role="viewer", label=unseen)
    await admin.ok("item.add", items=[{"key": "ada", unseen: unseen}], services=["dm_check"])
    item = (await admin.ok("item.show", key="ada"))["item"]
    await node.volunteer("worker")
    await admin.ok("client.deactivate", client_id="worker", reason=unseen)

    tab = await open_tab(node, "tokens")
    await as_role(tab, node, "admin")
    await tab.wait_for_text("tbody tr", written)
    assert written in (await tab.page.locator("tbody [title*='wall']").first.get_attribute("title") or "")
    for address in (f"items/{item}", "clients/worker"):
        await tab.open(address)
        await tab.wait_for_text("main", written)
        assert "\u202e" not in await tab.page.locator("body").inner_text()


async def test_nothing_inline_runs(server: Server, open_tab: OpenTab) -> None:
    tab = await open_tab(server)
    await tab.wait_until_live()
    violations, hacked, bold_elements = await tab.evaluate(
        """async () => {
            const violations = [];
            document.addEventListener('securitypolicyviolation', event => violations.push(event.effectiveDirective));
            const attempts = [
                () => { document.body.innerHTML += '<b>markup</b>'; },
                () => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';
                        document.body.append(s); },
                () => { const i = document.createElement('i'); i.setAttribute('onclick', 'window.hacked = 1');
                        document.body.append(i); i.click(); },
                () => { const b = document.createElement('b'); b.setAttribute('style', 'color: red');
                        document.body.append(b); },
                () => fetch('https://elsewhere.example/').catch(() => undefined),
            ];
            for (const attempt of attempts) { try { await attempt(); } catch { } }
            await new Promise(resolve => setTimeout(resolve));
            return [violations.sort(), typeof window.hacked, document.querySelectorAll('b').length];
        }"""
    )
    assert hacked == "undefined"
    assert {"connect-src", "require-trusted-types-for", "style-src-attr"} <= set(violations), (
        violations,
        bold_elements,
    )
    assert tab.problems
    tab.problems.clear()  # the console has each refusal too
    tab.foreign_requests.clear()  # the address of the last attempt


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
