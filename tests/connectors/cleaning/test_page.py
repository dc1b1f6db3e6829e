"""The page of a run, served by the command: who may come in, what is shown, what decisions do."""

from __future__ import annotations

import os
import re
import socket
import time
from html import unescape
from pathlib import Path

import httpx
import polars as pl
import pytest

from connectors.cleaning.decisions import undo_changes
from connectors.cleaning.outputs import OutputError
from connectors.cleaning.page.server import serve_page
from connectors.cleaning.page.views import Filter, Shown
from connectors.cleaning.run import clean_file, load_run
from connectors.local_page.text import difference, shown
from infra.errors import ConfigurationError, ServiceError
from tasks.cleaning.contract.toml import from_toml
from tests.connectors.page_server import PageServer

PICTURES = os.environ.get("TEST_PICTURES", "")
CONTRACT = from_toml(
    """
[columns.n]
kind = "integer"
[columns.town]
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
[columns.weight.confidence]
kind = 0.9
[columns.grams]
kind = "integer"
unit_spellings = ["g"]
"""
)


def make(folder, weights=("5 kg", "6 kg"), notes=()):
    """A run: two units, a typo for review in row 60, a declared unit in row 2, a bad row 61."""
    towns = ["Aldburgh"] * 30 + ["Dorchester"] * 30 + ["Aldbxrgh"]
    frame = pl.DataFrame(
        {
            "n": [str(i) for i in range(61)],
            "town": towns,
            "weight": [*weights, *["7"] * (61 - len(weights))],
            "grams": ["1", "1", "9 g", *["1"] * 58],
        }
    )
    bad = pl.DataFrame({"n": ["x"], "town": [""], "weight": ["7"], "grams": ["1"]})
    file = folder / "towns.parquet"
    pl.concat([frame, bad]).write_parquet(file)
    clean_file(file, folder / "run", CONTRACT)
    return folder / "run"


class Server(PageServer):
    """The command in a process of its own, and what its page is asked.

    Attributes:
        folder: Of the run.
    """

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        self.folder = folder
        super().__init__("-m", "flows.cli.main", "clean", "open", str(folder), *words, **variables)

    def get(self, view="changes"):
        """Return the markup of a view."""
        answer = self.client.get(view, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return answer.text

    def press(self, button, view="changes", *, sure=False, generation=None, **headers):
        """Press a button of a view, as a browser sends it; return the answer."""
        page = self.get(view)
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
        fields = {name: unescape(value) for name, value in fields.items()}
        fields |= {"do": button} | ({"sure": "yes"} if sure else {})
        if generation is not None:
            fields["generation"] = generation
        return self.post("decide", fields, **headers)

    def told(self, *words, **options):
        """Press a button and return the message that follows."""
        answer = self.press(*words, **options)
        assert answer.status_code == 200, answer.text
        return unescape(re.search(r'role="status">(.*?)</p>', answer.text)[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory, end_with_run):
    started = Server(make(tmp_path_factory.mktemp("page")))
    end_with_run(started.process.pid)
    yield started
    code, said = started.close()
    assert code == 0
    assert said.endswith(CLOSED)
    end_with_run(-started.process.pid)


CLOSED = "closed; every decision is published\n"


@pytest.fixture
def fresh(server):
    """The server, its run as first made."""
    make(server.folder.parent)
    return server


def button(page, label, row):
    """The value of the button of a row of the source."""
    for tr in re.findall(r'<tr id="r\d+">.*?</tr>', page, re.DOTALL):
        number = re.search(r"<summary>([\d,]+)</summary>|class=\"n\">([\d,]+)", tr)
        if number and int((number[1] or number[2]).replace(",", "")) == row:
            return re.search(rf'value="({label}:[^"]*)"', tr)[1]
    raise AssertionError(f"no row {row}")


def test_only_the_printed_address_on_this_machine_is_served(server):
    good = f"127.0.0.1:{server.port}"
    base = f"http://{good}"
    token = httpx.URL(server.url).path.strip("/")
    assert len(token) >= 40
    for path in ("/", "/changes", f"/{token[:-1]}/changes", f"/{token}x/changes", "//changes"):
        answer = server.client.get(base + path)
        assert answer.status_code == 404
        assert token not in answer.text
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", "[::1]:80"):
        answer = server.client.get("changes", headers={"host": host})
        assert answer.status_code == 421
    assert server.client.get("changes", headers={"host": good}).status_code == 200
    assert server.client.request("DELETE", "changes").status_code == 405
    assert server.client.get("changes?text=" + "x" * 9_000).status_code == 414
    assert server.client.get("report").status_code == 404


def test_pages_carry_a_policy_without_other_sources(server):
    headers = server.client.get("changes").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy.replace("'sha256-", "")
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "x-frame-options" in server.client.get("/wrong").headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_decide_nothing(fresh, headers):
    page = fresh.get()
    assert fresh.press(button(page, "undo", 0), **headers).status_code == 403
    assert load_run(fresh.folder).decisions.is_empty()


def test_who_is_refused_reads_the_answer_although_the_form_came_late(fresh):
    fields = b"x" * 5_000
    head = f"POST {httpx.URL(fresh.url).path}decide HTTP/1.1\r\nhost: 127.0.0.1:{fresh.port}\r\n"
    head += f"origin: http://elsewhere.example\r\ncontent-length: {len(fields)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fresh.port), timeout=30) as sender:
        sender.sendall(head.encode())
        time.sleep(0.3)  # so long that a server which does not read would have closed
        sender.sendall(fields[:1_000])
        sender.sendall(fields[1_000:])
        answer = b""
        while block := sender.recv(4_096):
            answer += block
    assert answer.startswith(b"HTTP/1.1 403 "), answer


def test_a_form_needs_the_token_and_a_bounded_size(fresh):
    headers = {"origin": f"http://127.0.0.1:{fresh.port}"}
    for data, status in (
        ({"do": "undo-all", "sure": "yes"}, 403),
        ({"do": "undo-all", "token": "guess"}, 403),
        ({"do": "x" * 70_000}, 413),
    ):
        assert fresh.client.post("decide", data=data, headers=headers).status_code == status
    answer = fresh.client.post("decide", json={"do": "undo-all"}, headers=headers)
    assert answer.status_code == 413
    assert load_run(fresh.folder).decisions.is_empty()


def test_a_cell_is_undone_and_the_page_goes_on_at_its_place(fresh):
    page = fresh.get()
    assert "5<mark> kg</mark>" in page
    answer = fresh.press(button(page, "undo", 0))
    assert "1 change undone: row 0, column weight." in answer.text
    assert str(answer.url).endswith("#r0")
    run = load_run(fresh.folder)
    assert run.frame["weight"][:2].to_list() == ["5 kg", "6"]
    assert "undone" in fresh.get("decisions")
    with pytest.raises(AssertionError, match="no row 0"):
        button(fresh.get(), "undo", 0)


def test_a_row_that_a_decision_spoils_is_said_to_be_set_aside(fresh):
    told = fresh.told(button(fresh.get(), "undo", 2))
    assert told == (
        "1 change undone: row 2, column grams; 1 row breaks kind:grams now and was set aside."
    )
    assert "9 g" in fresh.get("quarantine")
    # Forgotten, it comes back.
    ask = fresh.press("forget:0:0", "decisions")
    assert "Forget 1 decision?" in ask.text
    told = fresh.told("forget:0:0", "decisions", sure=True)
    assert "1 decision forgotten" in told
    assert load_run(fresh.folder).frame["grams"][2] == "9"


def test_a_rule_and_a_column_are_undone_after_a_question(fresh):
    answer = fresh.press("undo-column:weight")
    assert "Undo 2 changes in 2 rows?" in answer.text
    assert load_run(fresh.folder).decisions.is_empty()
    assert fresh.told("undo-column:weight", sure=True) == "2 changes undone."
    assert load_run(fresh.folder).frame["weight"][:2].to_list() == ["5 kg", "6 kg"]
    assert fresh.told("undo-rule:unit", sure=True).startswith("1 change undone")


def test_suggestions_are_accepted_and_rejected(fresh):
    page = fresh.get("review")
    assert "Aldb<mark>x</mark>rgh" in page
    told = fresh.told(button(page, "accept", 60), "review")
    assert told == "1 suggestion accepted: row 60, column town."
    assert load_run(fresh.folder).frame["town"][60] == "Aldburgh"
    make(fresh.folder.parent)
    assert "Reject 1 finding in 1 row?" in fresh.press("reject-all", "review").text
    assert fresh.told("reject-all", "review", sure=True) == "1 finding rejected."
    assert "Nothing is left to decide." in fresh.get("review")
    assert fresh.told("accept-all", "review", sure=True) == "Nothing was done: nothing fits"


def test_rows_are_cleaned_again_by_the_contract(fresh):
    assert "Clean all 62 rows again" in fresh.press("requeue", "quarantine").text
    told = fresh.told("requeue", "quarantine", sure=True)
    assert told == "0 rows came back out of quarantine."


def test_what_another_process_decided_meanwhile_is_not_overwritten(fresh):
    page = fresh.get()
    generation = re.search(r'name="generation" value="([^"]+)"', page)[1]
    undo_changes(fresh.folder, pl.col("row") == 1)
    told = fresh.told(button(page, "undo", 0), generation=generation)
    assert "another process has changed the run" in told
    assert load_run(fresh.folder).frame["weight"][:2].to_list() == ["5", "6 kg"]
    assert fresh.told(button(page, "undo", 0)).startswith("1 change undone")


def test_a_folder_that_is_written_to_is_said_to_be_busy(fresh):
    import fcntl

    value = button(fresh.get(), "undo", 0)
    with (fresh.folder / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "or is doing so" in fresh.told(value)
    assert load_run(fresh.folder).decisions.is_empty()


def test_an_altered_file_is_said_and_nothing_is_done(fresh):
    value = button(fresh.get(), "undo", 0)
    with load_run(fresh.folder).place.clean_path.open("a") as handle:
        handle.write("9,9,9,9\n")
    assert "its content was changed since" in fresh.told(value)


@pytest.mark.parametrize("value", ["undo:99999:0", "undo:x:y", "drop-all:", "", "undo-all-all"])
def test_nonsense_does_nothing(fresh, value):
    assert fresh.told(value, sure=True).startswith("Nothing was done")
    assert load_run(fresh.folder).decisions.is_empty()


HOSTILE = [
    "<script>alert(1)</script> kg",
    "\"'><img src=x onerror=alert(1)> kg",
    "1\u202e2 kg",
    "1\x002 kg",
    "{{ 7*7 }} kg",
    "=cmd|' /C calc'!A0",
    " " + "9" * 10_000_000,
]


def test_hostile_cells_are_text_and_huge_ones_short(fresh):
    make(fresh.folder.parent, weights=[f" {text}" for text in HOSTILE])
    page = fresh.get()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "U+202E" in page
    assert "\u202e" not in page
    assert "\0" not in page
    assert "{{ 7*7 }}" in page
    assert len(page) < 200_000
    for tab in ("review", "quarantine", "decisions"):
        assert len(fresh.get(tab)) < 200_000
        assert "\0" not in fresh.get(tab)
    assert "nul-byte" in fresh.get("quarantine")
    told = fresh.told(button(page, "undo", 6))
    assert told.startswith("1 change undone: row 6")
    run = load_run(fresh.folder)
    assert len(run.frame["weight"][run.rows.to_list().index(6)]) == 10_000_002


def test_many_changes_come_in_pages_and_are_filtered(tmp_path):
    file = tmp_path / "many.csv"
    towns = "".join(f"{i},{i}{' kg' if i % 2 else ' lb'}\n" for i in range(240))
    file.write_text("n,weight\n" + towns)
    contract = from_toml(
        "[columns.n]\n[columns.weight]\nunit_spellings=['kg','lb']\nkind='decimal'"
    )
    clean_file(file, tmp_path / "run", contract)
    made = Shown.of(load_run(tmp_path / "run"))
    view = made.view(Filter("changes"))
    assert (view.total, view.pages, len(view.rows)) == (240, 5, 50)
    rows = [one["row"] for page in range(1, 6) for one in made.view(
        Filter("changes", page=page)
    ).rows]  # fmt: skip
    assert rows == list(range(240))
    assert [one["row"] for one in made.view(Filter("changes", page=99)).rows] == rows[200:]
    assert made.view(Filter("changes", text="KG")).total == 120
    assert made.view(Filter("changes", text="39 kg")).total == 3
    assert made.view(Filter("changes", row=7)).total == 1
    assert made.view(Filter("changes", column="n")).total == 0
    assert view.columns == [("weight", 240)]


def test_a_filter_survives_its_way_through_a_link():
    wanted = Filter("review", "a\nb&c", "x:y", 7, "ü\"'", "doubt", 3)
    query = dict(httpx.QueryParams(wanted.link(page=3).partition("?")[2]))
    assert Filter.of("review", query) == wanted
    assert Filter.of("nowhere", {"row": "-1", "page": "x", "sort": "y"}) == Filter("changes")


def test_what_differs_is_marked():
    assert difference("5 kg", "5") == ("5<mark> kg</mark>", "5")
    assert difference("Cumbria", "Dorset") == ("<mark>Cumbria</mark>", "<mark>Dorset</mark>")
    assert difference(None, "a") == ('<i class="none">missing</i>', "a")
    before, after = difference("a" * 5_000 + "x" + "b" * 5_000, "a" * 5_000 + "y" + "b" * 5_000)
    assert "<mark>x</mark>" in before
    assert "4,976 characters" in after
    assert shown("") == '<i class="none">empty</i>'


def test_it_takes_a_token_of_the_environment_and_ends_when_nobody_looks(fresh, end_with_run):
    other = Server(
        fresh.folder, "--idle-minutes", "0.01", PENSTOCK_CLEAN_TOKEN="my-own-token-of-some-length"
    )
    end_with_run(other.process.pid)
    assert other.url.endswith("/my-own-token-of-some-length/")
    said = other.process.communicate(timeout=30)[0]
    assert other.process.returncode == 0
    assert said.endswith(CLOSED)
    end_with_run(-other.process.pid)
    other.client.close()


def test_a_token_that_can_be_guessed_a_taken_port_and_no_run_are_told(fresh, tmp_path, monkeypatch):
    with pytest.raises(ServiceError, match="cannot listen on"):
        serve_page(fresh.folder, port=fresh.port, idle_seconds=1, tell=print)
    with pytest.raises(OutputError, match="no run is published there"):
        serve_page(tmp_path, idle_seconds=1, tell=print)
    monkeypatch.setenv("PENSTOCK_CLEAN_TOKEN", "short")
    with pytest.raises(ConfigurationError, match="is no token of 20 to 200"):
        serve_page(fresh.folder, idle_seconds=1, tell=print)


def test_a_person_undoes_by_click_and_decides_by_key(fresh, browser):
    browser.open(fresh.url)
    browser.run("[...document.querySelectorAll('button')].find(b => b.innerText == 'Undo').click()")
    browser.wait_for("document.body.innerText.includes('1 change undone: row 0, column weight')")
    assert load_run(fresh.folder).frame["weight"][0] == "5 kg"
    browser.open(fresh.url + "review")
    for key in "ja":
        pressed = f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})"
        browser.run(f"document.body.dispatchEvent({pressed})")
    browser.wait_for("document.body.innerText.includes('1 suggestion accepted: row 60')")
    assert load_run(fresh.folder).frame["town"][60] == "Aldburgh"
    make(fresh.folder.parent, weights=HOSTILE[:6])
    for tab in ("changes", "review", "quarantine", "decisions"):
        browser.open(fresh.url + tab)
        assert browser.run("document.scripts.length") == 1
        assert browser.run("document.images.length") == 0
        if PICTURES:
            browser.picture(Path(PICTURES) / f"clean-{tab}.png")
    assert browser.said == []
