"""The page, in a real browser: who may see it, what lives on it, why something was blocked."""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path

import pytest

from tests.connectors.api.conftest import SECRETS

PICTURES = os.environ.get("TEST_PICTURES", "")
FORM = {"content-type": "application/x-www-form-urlencoded"}


def log_in(api, token=SECRETS["reader"], to="/ui"):
    body = urllib.parse.urlencode({"token": token, "to": to}).encode()
    return api.call("POST", "/ui/login", body, token="", headers=FORM)


def page(api, path, cookie=""):
    return api.call("GET", path, token="", headers={"cookie": cookie} if cookie else {})


@pytest.fixture(scope="module")
def cookie(api):
    return log_in(api).headers["set-cookie"].split(";")[0]


def test_pages_need_a_login(api):
    for path in ("/ui", "/ui/", "/ui/entity?kind=customer&id=1", "/ui/event?id=1"):
        answer = page(api, path)
        assert answer.status == 303
        assert answer.headers["location"].startswith("/ui/login?to=%2Fui")
    assert page(api, "/ui/live").status == 401
    assert page(api, "/ui/login").status == 200
    assert page(api, "/ui", "penstock_session=guess").status == 303


def test_a_login_is_a_careful_cookie(api):
    answer = log_in(api, to="/ui/event?id=7")
    assert answer.status == 303
    assert answer.headers["location"] == "/ui/event?id=7"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert re.search("samesite=strict", cookie, re.IGNORECASE)
    assert "Path=/ui" in cookie
    assert SECRETS["reader"] not in cookie
    value = cookie.split(";")[0]
    assert page(api, "/ui", value).status == 200
    assert page(api, "/v1/model", value).status == 401, "the cookie opens pages alone"
    api.call("POST", "/ui/logout", b"", token="", headers=FORM | {"cookie": value})
    assert page(api, "/ui", value).status == 303


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/ui//x", "/v1"])
def test_logins_lead_nowhere_else(api, target):
    assert log_in(api, to=target).headers["location"] == "/ui"


def test_wrong_tokens_and_scopes(api):
    wrong = log_in(api, "nobody-0123456789abcdef")
    assert wrong.status == 401
    assert b"not known here" in wrong.body
    assert log_in(api, SECRETS["scorer"]).status == 403
    assert log_in(api, "x" * 5_000).status == 413


def test_pages_carry_a_policy_and_escape_what_they_show(api, cookie, events):
    evil = "<script>alert(1)</script>"
    event = events(customer=evil)
    api.call("POST", "/v1/score", event, token=SECRETS["scorer"])
    for path in (
        "/ui",
        f"/ui/event?id={event['tx_id']}",
        "/ui/entity?" + urllib.parse.urlencode({"kind": "customer", "id": evil}),
        "/ui/entity?" + urllib.parse.urlencode({"kind": evil, "id": evil}),
    ):
        answer = page(api, path, cookie)
        assert b"<script>alert" not in answer.body
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"


def test_what_is_not_there(api, cookie):
    assert page(api, "/ui/event?id=987654321", cookie).status == 404
    assert page(api, "/ui/event?id=" + "x" * 999, cookie).status == 404
    assert page(api, "/ui/entity?kind=customer&id=nobody", cookie).status == 404
    assert page(api, "/ui/search?kind=event&id=7", cookie).headers["location"] == "/ui/event?id=7"
    assert page(api, "/ui/search?kind=customer&id=%20", cookie).headers["location"] == "/ui"


def picture(browser, name):
    if PICTURES:
        browser.picture(Path(PICTURES) / f"{name}.png")


def test_someone_watches_a_block_and_sees_why(start, bundle, bank, browser, events):
    """A stranger logs in, watches decisions arrive, opens a blocked one and reads the reasons."""
    config, _, tx = bank
    api = start({"model": bundle.folder})
    recent = tx.take(slice(len(tx) - 400, len(tx)))
    ids = {c: recent.index[recent.kinds[c]][recent.entities[c]] for c in recent.entities}
    history = [
        {
            "tx_id": int(recent.event_id[i]),
            "t": (int(recent.time[i]) - config.origin_ms) // 1000,
            "customer": str(ids["customer"][i]),
            "terminal": str(ids["terminal"][i]),
            "amount_cents": int(recent.amount[i]),
        }
        for i in range(len(recent))
    ]
    api.call(
        "POST", "/v1/score", {"transactions": history, "reasons": True}, token=SECRETS["admin"]
    )
    browser.open(f"{api.url}/ui")
    assert browser.run("location.pathname") == "/ui/login"
    picture(browser, "login")
    browser.run(
        f"document.querySelector('#token').value = '{SECRETS['reader']}';"
        "document.querySelector('main form').submit()"
    )
    browser.wait_for("document.querySelector('#state')?.textContent === 'live'")
    like = {"customer": history[-1]["customer"], "amount_cents": 95_000}
    twin = api.call("POST", "/v1/score", events(terminal="twin", **like), token=SECRETS["scorer"])
    rules = {
        "version": "r",
        "review_at": twin.data["score"] / 3,
        "block_at": twin.data["score"] / 2,
    }
    api.call("PUT", "/v1/rules", rules, token=SECRETS["admin"])
    blocked = events(terminal="new", **like)
    number = str(blocked["tx_id"])
    sent = [events(customer=f"c{i}", amount_cents=2_000) for i in range(5)] + [blocked]
    for event in sent:
        answer = api.call("POST", "/v1/score", event, token=SECRETS["scorer"])
    assert answer.data["decision"] == "block"
    assert answer.data["reasons"]
    browser.wait_for(
        f"[...document.querySelectorAll('#decisions a')].some(a => a.textContent === '{number}')"
    )
    browser.wait_for("document.querySelector('#alerts li.block .why').textContent.length > 10")
    picture(browser, "live")
    browser.run(
        "[...document.querySelectorAll('#alerts a')]"
        f".find(a => a.href.includes('{number}')).click()"
    )
    browser.wait_for("location.pathname === '/ui/event'")
    browser.wait_for("document.querySelectorAll('.reasons li').length >= 1")
    text = browser.run("document.body.innerText")
    assert "BLOCKED" in text.upper()
    assert answer.data["reasons"][0]["text"][1:] in text
    assert "950.00" in text
    picture(browser, "event")
    browser.run("document.querySelector('.facts a').click()")
    browser.wait_for("location.pathname === '/ui/entity'")
    browser.wait_for("document.querySelectorAll('.timeline li').length >= 2")
    picture(browser, "entity")
    browser.run(
        "document.querySelector('.search select').value = 'terminal';"
        "document.querySelector('.search input').value = 'new';"
        "document.querySelector('.search').submit()"
    )
    browser.wait_for("document.querySelector('h1')?.textContent.startsWith('new')")
    assert browser.said == [], "the console must stay silent"
