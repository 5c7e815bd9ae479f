"""The page, in a real Chromium, against `semel up`."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from semel import sync
from semel.client import Client
from semel.db import Database
from semel.settings import Settings
from semel.values.model import ModelEntry
from semel.values.text import Lane
from tests.conftest import missing
from tests.support.browser import browser, find_chromium
from tests.support.jobs import Jobs
from tests.support.processes import FAKE_TOML, Processes, processes, wait_until
from tests.support.up import Up, up
from tests.support.values import space

VIEWS = ("now", "jobs", "submit", "try", "cache", "models", "syncs")
PATIENCE_MS = 60_000
HOSTILE = '<script>window.hurt = 1</script><img src="x" onerror="window.hurt = 1">'

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        missing("no Chromium here; 'make test' fetches one where it can, or set SEMEL_TEST_CHROMIUM")
        return
    with browser(executable) as running:
        yield running


@pytest.fixture(scope="module")
def semel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A server whose fake model is slow and fails on `poison`."""
    with up(tmp_path_factory.mktemp("page"), model="fail_on=poison&text_ms=2") as running:
        yield running


@pytest.fixture(scope="module")
def client(semel: Up) -> Iterator[Client]:
    with Client(semel.url) as made:
        yield made


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new tab. The test fails if a script throws or the Content-Security-Policy refuses something."""
    context = chromium.new_context(accept_downloads=True, viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda entry: "Content Security Policy" in entry.text and wrong.append(entry.text))
    yield opened
    context.close()
    assert wrong == []


def visit(page: Page, semel: Up | Processes, view: str) -> None:
    page.goto(f"{semel.url}/#{view}")
    expect(page.locator("#connection", has_text="live")).to_be_visible()


def tile(page: Page, name: str) -> Locator:
    return page.locator(".tile").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")


def jsonl(folder: Path, texts: list[str]) -> Path:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return file


def choose(page: Page, semel: Up, file: Path) -> None:
    visit(page, semel, "submit")
    page.get_by_label("Model").select_option("fake")
    page.locator("#file").set_input_files(file)


def test_a_file_is_submitted_followed_until_it_is_done_and_downloaded(
    page: Page, semel: Up, client: Client, tmp_path: Path
) -> None:
    texts = [f"a line of the file {i}" for i in range(3000)]
    file = jsonl(tmp_path, [*texts, *texts[:10]])
    choose(page, semel, file)
    expect(tile(page, "Texts")).to_have_text("3,0103,000 distinct")
    expect(tile(page, "Already cached")).to_have_text("00 %")
    expect(tile(page, "To compute")).to_contain_text("3,000")
    expect(page.locator("td").filter(has_text="a line of the file 1").first).to_be_visible()
    page.get_by_role("button", name="Embed").click()
    seen = set()
    progress = page.locator(".headline p").first
    while not (shown := progress.inner_text(timeout=PATIENCE_MS)).startswith("100 %"):
        seen.add(shown.split(",")[0])
        time.sleep(0.1)
    assert len(seen) >= 3, seen  # the progress moved
    expect(page.locator(".headline b")).to_have_text(file.name)
    expect(page.locator(".headline .badge")).to_have_text("completed")
    with page.expect_download() as ndjson:
        page.get_by_role("button", name="NDJSON").click()
    assert ndjson.value.suggested_filename == "texts.ndjson"
    rows = [json.loads(line) for line in ndjson.value.path().read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(3010))
    want = client.embed([*texts[:2000]], model="fake")
    assert (np.array([row["embedding"] for row in rows[:2000]], np.float32) == want).all()
    with page.expect_download() as parquet:
        page.get_by_role("button", name="Parquet").click()
    table = pq.read_table(parquet.value.path())
    assert (np.stack(table["embedding"].to_numpy()[:2000]) == want).all()

    choose(page, semel, file)  # the same again
    expect(tile(page, "Already cached")).to_have_text("3,010100 %")
    expect(tile(page, "To compute")).to_have_text("0finishes at once")
    page.get_by_role("button", name="Embed").click()
    expect(page.locator(".headline")).to_contain_text("3,010 hit")


def test_errors_in_a_file_are_shown_before_it_is_submitted(page: Page, semel: Up, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("body,n\none,1\ntwo,2\n")
    choose(page, semel, table)
    expect(page.locator(".failure")).to_contain_text("columns: body, n")
    expect(page.get_by_role("button", name="Embed")).to_be_disabled()
    page.get_by_label("Text field").fill("body")
    page.get_by_label("Text field").press("Tab")
    expect(tile(page, "Texts")).to_have_text("22 distinct")
    other = tmp_path / "notes.docx"
    other.write_bytes(b"x")
    page.locator("#file").set_input_files(other)
    expect(page.locator(".failure")).to_contain_text("the name must end in .jsonl")
    bad = jsonl(tmp_path, ["fine", ""])
    page.get_by_label("Text field").fill("text")
    page.locator("#file").set_input_files(bad)
    expect(tile(page, "Cannot be embedded")).to_contain_text("1")
    expect(page.locator("li", has_text="text 1 is empty")).to_be_visible()
    expect(page.get_by_role("button", name="Embed")).to_be_enabled()
    (tmp_path / "other").mkdir()
    page.locator("#file").set_input_files(jsonl(tmp_path / "other", [""]))
    expect(tile(page, "To compute")).to_have_text("0no text can be embedded")
    expect(page.get_by_role("button", name="Embed")).to_be_disabled()


def test_a_job_is_cancelled_after_a_confirmation(page: Page, semel: Up, client: Client) -> None:
    job = client.submit([f"{'slow ' * 9}{i}" for i in range(20_000)], model="fake")
    visit(page, semel, f"jobs/{job.id}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go back").click()
    assert not client.job(job.id).status.ended
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".headline .badge")).to_have_text("cancelled")
    assert client.job(job.id).status == "cancelled"
    expect(page.locator(".facts div", has_text=re.compile("^cancelled"))).to_contain_text(re.compile(r"after \d"))
    expect(page.get_by_role("heading", name="Job", level=1)).to_be_focused()  # the button is gone
    page.get_by_role("button", name="Delete job").click()
    page.get_by_role("button", name="Delete this job").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert httpx.get(f"{semel.url}/v1/jobs/{job.id}").status_code == 404


def test_failed_texts_are_shown_with_their_reasons_and_retried(page: Page, semel: Up, client: Client) -> None:
    job = client.wait(client.submit(["fine", "a poison b", "", "fine too"], model="fake").id)
    visit(page, semel, f"jobs/{job.id}")
    rows = page.locator("section", has=page.get_by_role("heading", name="Failed: 2")).locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("a poison b")
    expect(rows.nth(1)).to_contain_text("is empty")
    expect(page.get_by_role("button", name="NumPy")).to_be_hidden()  # the format cannot mark a failed row
    with page.expect_response(re.compile(r"/retry$")) as retried:
        page.get_by_role("button", name="Retry failed texts").click()
    assert retried.value.json()["status"] == "in_progress"
    expect(page.locator(".headline .badge")).to_have_text("completed")
    hopeless = client.wait(client.submit([""], model="fake").id)
    visit(page, semel, f"jobs/{hopeless.id}")
    page.get_by_role("button", name="Retry failed texts").click()
    expect(page.get_by_role("alert").filter(has_text="would fail for the same reason")).to_be_visible()


def test_a_hostile_text_is_shown_and_not_executed(page: Page, semel: Up, client: Client, tmp_path: Path) -> None:
    metadata = {"name": HOSTILE}
    job = client.wait(client.submit([f"poison {HOSTILE}"], model="fake", metadata=metadata).id)
    visit(page, semel, f"jobs/{job.id}")
    expect(page.locator(".quoted", has_text="<script>window.hurt = 1</script>")).to_be_visible()
    expect(page.locator("dd", has_text='onerror="window.hurt = 1"')).to_be_visible()
    choose(page, semel, jsonl(tmp_path, [HOSTILE]))
    expect(page.locator(".quoted", has_text="<script>")).to_be_visible()
    visit(page, semel, "try")
    page.get_by_label("Texts, one per line").fill(f"{HOSTILE}\nharmless")
    page.get_by_label("Model").first.select_option("fake")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".heat tbody th").first).to_contain_text("<script>")
    assert page.evaluate("window.hurt") is None
    assert page.locator("main script, main img").count() == 0


def test_the_policy_refuses_scripts_that_the_server_did_not_send(chromium: Browser, semel: Up) -> None:
    answer = httpx.get(semel.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|https?://", answer.text)
    tab = chromium.new_page()
    tab.goto(semel.url)
    tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hurt = 1'}))"
    )
    assert tab.evaluate("window.hurt") is None
    tab.close()
    for name in ("..%2fapp.py", "%2e%2e/app.py", "app.py", "nothing.js", "index.html%00.js"):
        assert httpx.get(f"{semel.url}/page/{name}").status_code == 404
    for view in ("%", "constructor", "jobs/..%2Ffiles%2Fx", "jobs/%"):
        strange = chromium.new_page()
        strange.goto(f"{semel.url}/#{view}")
        expect(strange.locator("#connection", has_text="live")).to_be_visible()
        strange.close()


def test_the_list_of_routes_needs_no_internet(chromium: Browser, semel: Up) -> None:
    with chromium.new_context() as context, context.new_page() as tab:
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(semel.url)
        tab.get_by_role("link", name="HTTP API").evaluate("link => location.href = link.href")
        expect(tab.get_by_text("/v1/jobs/estimate")).to_be_visible()
        assert [url for url in asked if not url.startswith((semel.url, "data:"))] == []


def test_a_form_on_another_website_is_refused(chromium: Browser, semel: Up) -> None:
    with chromium.new_context() as context, context.new_page() as visited:
        form = f'<form method="post" action="{semel.url}/v1/cache/verify"><button>You have won</button></form>'
        visited.route("http://website.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
        visited.goto("http://website.example/")
        with visited.expect_response("**/v1/cache/verify") as sent:
            visited.get_by_role("button").click()
        assert sent.value.status == 403
        assert "a page of another website" in visited.inner_text("body")


def test_now_shows_pools_queues_and_rates_while_work_goes_on(page: Page, semel: Up, client: Client) -> None:
    job = client.submit([f"{'for the chart ' * 3}{i}" for i in range(20_000)], model="fake")
    visit(page, semel, "now")
    expect(page.locator("article", has_text="cpu")).to_contain_text("healthy")
    computed = page.locator(".key.computed b")
    expect(computed).not_to_have_text(re.compile("^(0|–)$"))
    bulk = page.locator(".bars li", has_text="bulk on cpu")
    expect(bulk).to_contain_text(re.compile(r"[1-9][\d,]* texts"))
    expect(bulk.locator(".bar i")).to_have_attribute("style", re.compile(r"width: (0\.\d*[1-9]|[1-9])"))
    assert page.locator(".area.computed").get_attribute("d")
    client.cancel(job.id)


def test_the_list_of_jobs_is_live_and_filtered(page: Page, semel: Up, client: Client) -> None:
    visit(page, semel, "jobs")
    job = client.submit([f"{'listed ' * 5}{i}" for i in range(3000)], model="fake", metadata={"x": "y"})
    row = page.locator(f"tr[data-job={job.id}]")
    expect(row).to_contain_text("in progress")
    expect(row).to_contain_text(re.compile(r"[\d,]+/s"))
    expect(page.locator("tbody tr").first).to_have_attribute("data-job", job.id)
    expect(row).to_contain_text("completed")
    expect(row).to_contain_text("100 % of 3,000")
    page.get_by_label("Status").select_option("expired")
    expect(page.get_by_text("No job has this status.")).to_be_visible()
    page.get_by_label("Status").select_option("completed")
    row.get_by_role("link").click()
    expect(page.locator(".headline code")).to_have_text(job.id)
    page.go_back()
    expect(page.get_by_label("Status")).to_have_value("completed")
    expect(row).to_be_visible()


def test_an_empty_list_fills_and_drops_deleted_jobs(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=20") as semel:
        visit(page, semel, "jobs")
        expect(page.get_by_text("No jobs yet.")).to_be_visible()
        job = semel.client.submit([f"the first {i}" for i in range(200)], model="fake")
        row = page.locator(f"tr[data-job={job.id}]")
        expect(row).to_contain_text("in progress")
        expect(row).to_contain_text("100 % of 200")
        expect(row).to_contain_text("completed")
        semel.client.delete(job.id)
        expect(page.get_by_text("No jobs yet.")).to_be_visible()


def test_more_jobs_are_listed_than_one_event_reports(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        visit(page, semel, "jobs")
        for i in range(40):
            semel.client.submit([f"one of many {i}"], model="fake")
        expect(page.locator("tbody tr")).to_have_count(40)
        expect(page.locator("tbody .badge.completed")).to_have_count(40)


def test_the_most_recently_reported_job_is_dropped_last(page: Page, semel: Up, client: Client) -> None:
    job = httpx.get(f"{semel.url}/v1/jobs/{client.submit(['reported for long'], model='fake').id}").json()

    def event(*jobs: tuple[str, int]) -> str:
        rows = [
            {"job": {**job, "id": i, "status": "in_progress"}, "done": n, "texts_per_s": 7, "eta_s": 1} for i, n in jobs
        ]
        return f"event: jobs\ndata: {json.dumps(rows)}\n\n"

    others = [event(("job_long", 0), *((f"job_other_{n}_{i}", 0) for i in range(50))) for n in range(12)]
    stream = "".join(["event: history\ndata: []\n\n", *others, event(("job_long", 1))])
    page.route("**/v1/events", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))
    page.route("**/v1/jobs?*", lambda route: route.fulfill(json={"object": "list", "data": [], "has_more": False}))
    page.goto(f"{semel.url}/#jobs")
    expect(page.locator("tr[data-job=job_long]")).to_contain_text("100 % of 1")


def test_a_hidden_tab_sends_no_requests(page: Page, semel: Up, client: Client) -> None:
    job = client.submit([f"{'seen or not ' * 5}{i}" for i in range(20_000)], model="fake")
    visit(page, semel, f"jobs/{job.id}")
    expect(page.locator(".headline .badge")).to_have_text("in progress")
    show = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    show += " document.dispatchEvent(new Event('visibilitychange')) }"
    page.evaluate(show, True)
    page.wait_for_timeout(2500)  # requests under way end
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(5000)
    assert asked == []
    client.cancel(job.id)
    page.evaluate(show, False)
    expect(page.locator(".headline .badge")).to_have_text("cancelled")


def test_a_form_recovers_and_does_not_send_its_file_again(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        page.route("**/v1/models", lambda route: route.fulfill(status=503, json={}))
        page.goto(f"{semel.url}/#submit")
        expect(page.get_by_role("alert").filter(has_text="the server answered 503")).to_be_visible()
        page.unroute("**/v1/models")
        expect(page.get_by_label("Model")).to_have_value("fake")
        expect(page.get_by_role("alert").filter(has_text="the server answered 503")).to_be_hidden()
        sent: list[str] = []
        page.on("request", lambda request: "estimate" in request.url and sent.append(request.url))
        page.locator("#file").set_input_files(jsonl(tmp_path, ["one", "two"]))
        expect(tile(page, "Texts")).to_contain_text("2")
        semel.stop("worker")
        expect(page.get_by_label("Model").locator("option").first).to_contain_text("no live worker")
        semel.start_worker()
        expect(page.get_by_label("Model").locator("option").first).not_to_contain_text("no live worker")
        page.wait_for_timeout(1000)
        assert len(sent) == 1


def test_forms_offer_models_that_are_served_later(page: Page, tmp_path: Path) -> None:
    running = Processes(tmp_path, toml=FAKE_TOML)
    try:
        running.start_redis()
        running.start_api()
        page.goto(f"{running.url}/#try")
        expect(page.get_by_text("No worker has served a model yet.")).to_be_visible()
        running.start_worker()
        expect(page.get_by_label("Model").first).to_have_value("fake")  # the default, not the first by name
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".heat tbody tr")).to_have_count(4)
    finally:
        running.close()


def test_similarity_and_order_are_those_of_the_model(page: Page, semel: Up, client: Client) -> None:
    texts = ["the cat sleeps", "the cat naps", "shares fell"]
    visit(page, semel, "try")
    page.get_by_label("Texts, one per line").fill("\n".join(texts))
    page.get_by_label("Model").first.select_option("fake")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".heat tbody tr")).to_have_count(3)
    shown = [
        [float(cell) for cell in row.locator("td").all_inner_texts()] for row in page.locator(".heat tbody tr").all()
    ]
    vectors = client.embed(texts, model="fake")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.abs(np.array(shown) - vectors @ vectors.T).max() < 0.006
    cells = page.locator(".heat tbody td")
    alike = np.array(shown).ravel().clip(0, 1)
    colours = cells.evaluate_all("all => all.map(cell => getComputedStyle(cell).backgroundColor)")
    bright = [
        sum(float(part) for part in re.findall(r"[\d.]+", colour.partition("srgb")[2] or colour)) for colour in colours
    ]
    by_likeness = [bright[i] for i in np.argsort(alike)]
    assert by_likeness == sorted(by_likeness, reverse=True)  # more similar is darker
    documents = ["nothing of it", "a query in it", "what a query is"]
    page.get_by_label("Query").fill("a query")
    page.get_by_label("Documents, one per line").fill("\n".join(documents))
    page.get_by_label("Model").nth(1).select_option("reranker")
    page.get_by_role("button", name="Rerank").click()
    after = page.locator(".columns ol").nth(1).locator("li")
    expect(after).to_have_count(3)
    body = {"model": "reranker", "query": "a query", "documents": documents}
    ranked = httpx.post(f"{semel.url}/v1/rerank", json=body).json()["results"]
    for place, result in enumerate(ranked):
        expect(after.nth(place)).to_contain_text(documents[result["index"]])
        expect(after.nth(place)).to_contain_text(f"{result['relevance_score']:.3f}")
    page.get_by_label("Query").fill("")
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert").filter(has_text="Enter a query")).to_be_visible()


def test_syncs_are_shown_and_cut_over_after_a_confirmation(page: Page, semel: Up) -> None:
    settings = Settings(
        home=semel.folder / "home",
        models={
            name: ModelEntry(f"fake:?{options}")
            for name, options in {"old": "dim=8&fail_on=poison", "new": "dim=8&weights=b&fail_on=poison"}.items()
        },
    )
    sink = f"parquet:{semel.folder / 'index' / 'handbook'}"

    def run(documents: list[dict[str, str]], model: str) -> None:
        sync.run(source=documents, sink=sink, model=model, chunk_characters=50, settings=settings)

    visit(page, semel, "syncs")
    expect(page.get_by_text("No sync has run on this database")).to_be_visible()
    documents = [{"id": f"doc {i}", "text": f"text {i}"} for i in range(12)]
    run([*documents, {"id": HOSTILE, "text": "poison"}], "old")
    handbook = page.locator("section", has=page.get_by_role("heading", name="handbook"))
    runs = handbook.get_by_role("table", name="Runs of handbook, newest first").locator("tbody tr")
    expect(runs.first).to_contain_text("incomplete")
    expect(runs.first).to_contain_text("+13 ~0 −0")
    expect(handbook.get_by_role("listitem")).to_contain_text(f"{HOSTILE}: chunk 0:")
    run(documents, "new")
    collections = handbook.get_by_role("table", name="Collections of handbook").locator("tbody tr")
    expect(collections).to_have_count(2)
    expect(collections.nth(0)).to_contain_text("serving")
    expect(handbook.get_by_text("'semel sync cutover handbook' switches")).to_be_visible()
    collections.nth(1).get_by_role("button", name="Cut over").click()
    page.get_by_role("button", name="Go back").click()
    expect(collections.nth(1)).to_contain_text("ready")
    collections.nth(1).get_by_role("button", name="Cut over").click()
    page.get_by_role("dialog").get_by_role("button", name="Cut over").click()
    expect(page.get_by_text("answers now.")).to_be_visible()
    expect(collections.nth(1)).to_contain_text("serving")
    collections.nth(0).get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(collections.nth(0)).to_contain_text("serving")
    assert page.evaluate("window.hurt") is None


def test_the_cache_is_verified_and_pruned_after_a_count_and_a_confirmation(
    page: Page, semel: Up, client: Client
) -> None:
    client.embed([f"pruned here {i}" for i in range(7)], model="prompted", prompt_name="query")

    def fingerprint() -> str | None:
        spaces = httpx.get(f"{semel.url}/v1/cache").json()["spaces"]
        return next((s["fingerprint"] for s in spaces if s["prompt_name"] == "query"), None)

    wait_until(lambda: fingerprint() is not None)
    visit(page, semel, "cache")
    expect(page.locator("tbody tr", has_text="prompt query")).to_contain_text("7")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text(re.compile(r"^[\d,]+ vectors read, 0 damaged\.$")).first).to_be_visible()
    expect(page.get_by_role("button", name="Verify")).to_be_focused()
    prune = page.locator("section", has=page.get_by_role("heading", name="Prune"))
    prune.get_by_label("Vector space").select_option(fingerprint())
    prune.get_by_role("button", name="Count vectors to delete").click()
    expect(prune).to_contain_text("7 vectors would be deleted")
    prune.get_by_role("button", name="Delete 7 vectors").click()
    page.get_by_role("button", name="Go back").click()
    assert fingerprint()
    prune.get_by_role("button", name="Delete 7 vectors").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 7 vectors").click()
    expect(prune).to_contain_text("7 vectors deleted")
    expect(prune.get_by_role("button", name="Count vectors to delete")).to_be_focused()
    assert fingerprint() is None
    prune.get_by_label("Vector space").select_option("")
    prune.get_by_role("button", name="Count vectors to delete").click()  # without a condition
    expect(page.get_by_role("alert").filter(has_text="Choose a vector space, or enter")).to_be_visible()


def test_models_and_devices_show_what_is_usable_and_how_to_get_the_rest(page: Page, semel: Up) -> None:
    visit(page, semel, "models")
    expect(page.locator("tr", has_text="cpu").first).to_contain_text("healthy")
    machine = page.locator("section", has=page.get_by_role("heading", name="Configured models"))
    expect(machine.locator("tr", has_text="reranker")).to_contain_text("served", timeout=120_000)
    expect(machine.locator("tr", has_text="mps")).to_contain_text("needs a Mac")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits_the_screen(
    chromium: Browser, semel: Up, client: Client, width: int, scheme: str
) -> None:
    job = client.wait(client.submit(["seen", "", f"poison {'with a very long name' * 20}"], model="fake").id)
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for view in (*VIEWS, f"jobs/{job.id}"):
        visit(page, semel, view)
        if view == "models":
            expect(page.locator("tr", has_text="mps")).to_be_visible(timeout=120_000)
        if view == "try":
            page.get_by_role("button", name="Compare").click()
            page.get_by_role("button", name="Rerank").click()
            expect(page.locator(".heat")).to_be_visible()
            expect(page.locator(".columns")).to_be_visible()
        page.wait_for_timeout(300)
        found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        assert not found, (view, [(v["id"], v["help"], [n["html"] for n in v["nodes"]][:3]) for v in found])
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    context.close()


def test_the_page_works_with_the_keyboard_alone(page: Page, semel: Up) -> None:
    visit(page, semel, "now")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Jobs", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_focused()
    assert page.title() == "Jobs – semel"
    expect(page.locator("nav [aria-current=page]")).to_have_text("Jobs")
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()  # the same view is still shown
    page.get_by_role("link", name="Now", exact=True).click()
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("details li")).to_contain_text("process")
    page.wait_for_timeout(3000)  # the cards are drawn again meanwhile
    expect(page.locator("details li")).to_be_visible()
    expect(page.locator("summary")).to_be_focused()


def test_a_lost_connection_is_shown_and_restored(page: Page, tmp_path: Path) -> None:
    with up(tmp_path) as first:
        visit(page, first, "now")
        expect(page.locator("#banner")).to_be_hidden()
        first.process.kill()
        expect(page.get_by_role("alert").filter(has_text="Connection lost, retrying")).to_be_visible()
        port = first.port
    with up(tmp_path, model="fail_on=poison", port=port) as second:
        expect(page.locator("#connection", has_text="live")).to_be_visible()
        expect(page.locator("#banner")).to_be_hidden()
        with Client(second.url) as client:
            job = client.submit(["after the pause"], model="fake")
        page.goto(f"{second.url}/#jobs")
        expect(page.locator(f"tr[data-job={job.id}]")).to_contain_text("completed")


def test_state_from_before_a_lost_connection_is_not_trusted(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=50") as semel:
        job = semel.client.submit([f"ends in the dark {i}" for i in range(200)], model="fake")
        visit(page, semel, f"jobs/{job.id}")
        expect(page.locator(".headline .badge")).to_have_text("in progress")
        semel.stop("api")
        expect(page.get_by_role("alert").filter(has_text="Connection lost, retrying")).to_be_visible()
        page.wait_for_timeout(12_000)  # the worker ends the job without the API
        semel.start_api()
        expect(page.locator(".headline .badge")).to_have_text("completed")
        page.goto(f"{semel.url}/#jobs")
        expect(page.locator(f"tr[data-job={job.id}]")).to_contain_text("100 % of 200")


def test_a_part_that_does_not_answer_is_named(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        visit(page, semel, "now")
        semel.stop("worker")
        expect(page.get_by_role("alert").filter(has_text="workers: no worker is alive")).to_be_visible()
        semel.stop("redis")
        expect(page.get_by_role("alert").filter(has_text="Redis does not answer")).to_be_visible()


def test_the_page_asks_for_a_key_which_allows_what_its_scope_permits(page: Page, tmp_path: Path) -> None:
    with processes(tmp_path, SEMEL_API_KEYS="sk-work:submit,sk-look:read") as semel:
        page.goto(f"{semel.url}/#submit")
        page.get_by_role("textbox", name="API key").fill("sk-wrong")
        page.get_by_role("button", name="Use this key").click()
        refused = "this server does not know this API key; check it, or ask the operator for one"
        expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text(refused)
        page.get_by_role("textbox", name="API key").fill("sk-look")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#connection", has_text="live")).to_be_visible()
        page.get_by_label("Model").select_option("fake")
        page.locator("#file").set_input_files(jsonl(tmp_path, ["one", "two"]))
        expect(page.get_by_role("alert").filter(has_text="needs 'submit'")).to_be_visible()
        page.get_by_role("link", name="Try", exact=True).click()
        page.get_by_role("button", name="Rerank").click()
        expect(page.get_by_role("alert").filter(has_text="needs 'submit'")).to_be_visible()
        with page.expect_download() as metrics:
            page.get_by_role("link", name="Metrics").click()
        assert "semel_jobs" in metrics.value.path().read_text()
        page.get_by_role("link", name="Submit", exact=True).click()
        page.get_by_role("button", name="Forget key").click()
        page.get_by_role("textbox", name="API key").fill("sk-work")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_label("Model").select_option("fake")
        page.locator("#file").set_input_files(jsonl(tmp_path, ["one", "two"]))
        page.get_by_role("button", name="Embed").click()
        expect(page.locator(".headline .badge")).to_have_text("completed")
        with page.expect_download() as download:
            page.get_by_role("button", name="NumPy").click()
        assert np.load(download.value.path()).shape == (2, 16)


def test_a_thousand_jobs_with_long_names(chromium: Browser, tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        db = Database(f"sqlite:///{tmp_path / 'home' / 'semel.db'}")
        jobs = Jobs(db, window_s=600, retention_s=600)
        made = [
            jobs.add(space(), lane=Lane.BULK, device="cpu", why=f"cpu: {'because ' * 30}", truncate=True).id
            for _ in range(1000)
        ]
        for job_id in made:
            jobs.cancel(job_id)
        db.close()
        for width in (1440, 390):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            visit(page, semel, "jobs")
            for shown in range(50, 300, 50):
                expect(page.locator("tbody tr")).to_have_count(shown)
                page.get_by_role("button", name="Show more").click()
            newest = page.locator("tbody tr").first
            expect(newest).to_have_attribute("data-job", made[-1])
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            job = semel.client.wait(semel.client.submit([f"on top {width}"], model="fake").id)
            expect(newest).to_have_attribute("data-job", job.id)
            made.append(job.id)
            page.close()
