"""A server with API keys."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from semel.api.edge.keys import file_line
from semel.client import Client
from semel.errors import ForbiddenError, UnauthorizedError
from tests.support.processes import Processes, processes, wait_until

KEYS = "sk-work:submit,sk-look:read"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("guarded"), model="max_tokens=4", SEMEL_API_KEYS=KEYS) as running:
        yield running


def test_every_route_except_health_requires_a_key(guarded: Processes) -> None:
    routes = httpx.get(f"{guarded.url}/openapi.json").json()["paths"]
    open_to_all = {"/health/live", "/health/ready", "/health"}
    for path, methods in routes.items():
        for method in methods:
            answer = httpx.request(method, guarded.url + path.replace("{job_id}", "x"), json={})
            assert (answer.status_code == 401) is (path not in open_to_all), path
    refused = httpx.get(f"{guarded.url}/v1/models", headers={"authorization": "Bearer nope"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_a_key_may_do_only_what_its_scope_allows(guarded: Processes) -> None:
    with Client(guarded.url, api_key="sk-work") as worker:
        job = worker.wait(worker.submit(["a text"], model="fake").id)
        assert worker.embed(["a text"], model="fake").shape == (1, 16)
    with Client(guarded.url, api_key="sk-look") as reader:
        assert reader.job(job.id).status == "completed"
        assert reader.results(job.id).shape == (1, 16)
        with pytest.raises(ForbiddenError, match="needs 'submit'"):
            reader.embed(["a text"], model="fake")
        with pytest.raises(ForbiddenError):
            reader.cancel(job.id)
    with Client(guarded.url) as anonymous, pytest.raises(UnauthorizedError, match="Authorization: Bearer"):
        anonymous.jobs()


def test_a_read_only_key_sees_no_text(guarded: Processes) -> None:
    with Client(guarded.url, api_key="sk-work") as worker:
        job = worker.wait(worker.submit(["fine", "a secret that is too long"], model="fake", truncate=False).id)
    shown = {}
    for key in ("sk-work", "sk-look"):
        headers = {"authorization": f"Bearer {key}"}
        (failed,) = httpx.get(f"{guarded.url}/v1/jobs/{job.id}/failed", headers=headers).json()["data"]
        assert failed["error"]["code"] == "text_too_long"
        shown[key] = failed["text"]
    assert shown == {"sk-work": "a secret that is too long", "sk-look": None}


def test_a_read_only_key_cannot_download_a_file(guarded: Processes) -> None:
    headers = {key: {"authorization": f"Bearer {key}"} for key in ("sk-work", "sk-look")}
    sent = httpx.post(
        f"{guarded.url}/v1/files",
        data={"purpose": "batch"},
        files={"file": ("secrets.jsonl", b'{"secret": 1}\n')},
        headers=headers["sk-work"],
    )
    content = f"{guarded.url}/v1/files/{sent.json()['id']}/content"
    assert httpx.get(content, headers=headers["sk-work"]).text == '{"secret": 1}\n'
    assert httpx.get(content, headers=headers["sk-look"]).status_code == 403


def test_the_openai_client_and_the_x_api_key_header_authenticate(guarded: Processes) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-work") as client:
        assert len(client.embeddings.create(model="fake", input="x").data[0].embedding) == 16
    stranger = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-no", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="does not know this API key"):
        stranger.models.list()
    assert httpx.get(f"{guarded.url}/v1/jobs", headers={"x-api-key": "sk-look"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of localhost
        {"origin": "http://website.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "website.example"},
        {"host": "under_scored.website.example"},
        {"host": "[::"},
    ],
)
def test_without_keys_a_website_cannot_submit(semel: Processes, headers: dict[str, str]) -> None:
    before = [job.id for job in semel.client.jobs()]
    answer = httpx.post(f"{semel.url}/v1/jobs", headers=headers, files={"file": ("x.txt", b"planted")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_page")
    assert "SEMEL_API_KEYS" in answer.json()["error"]["message"]
    assert [job.id for job in semel.client.jobs()] == before


def test_without_keys_a_website_cannot_read_by_dns_rebinding(semel: Processes) -> None:
    assert httpx.get(f"{semel.url}/v1/jobs", headers={"host": "website.example"}).status_code == 403
    for host in (f"localhost:{semel.port}", "semel.localhost", "[::1]:8700", "10.0.0.7"):
        assert httpx.get(f"{semel.url}/v1/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_without_keys_a_website_may_link_to_a_route_but_not_load_it(semel: Processes, site: str) -> None:
    loads = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert httpx.get(f"{semel.url}/v1/inventory", headers=loads).status_code == 403
    leads = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert httpx.get(f"{semel.url}/metrics", headers=leads).status_code == 200
    frames = {**leads, "sec-fetch-dest": "iframe"}
    assert httpx.get(f"{semel.url}/v1/jobs", headers=frames).status_code == 403


def test_an_allowed_host_name_is_accepted(tmp_path: Path) -> None:
    with processes(tmp_path, SEMEL_ALLOWED_HOSTS="semel.example") as named:
        for host, status in (("semel.example:8700", 200), ("localhost", 200), ("website.example", 403)):
            assert httpx.get(f"{named.url}/v1/jobs", headers={"host": host}).status_code == status


def test_the_servers_own_page_and_requests_with_a_key_are_accepted(semel: Processes, guarded: Processes) -> None:
    for own in ({"sec-fetch-site": "same-origin"}, {"origin": semel.url}):
        assert httpx.post(f"{semel.url}/v1/cache/verify", headers=own).status_code == 200
    other = {"sec-fetch-site": "cross-site", "host": "semel.example", "authorization": "Bearer sk-work"}
    assert httpx.post(f"{guarded.url}/v1/embeddings", headers=other, json={"input": "x"}, timeout=60).status_code == 200


def test_namespaces_with_a_real_worker(tmp_path: Path) -> None:
    """A text of a private namespace is computed again, once; the input of a batch is read by its own namespace only."""
    made = {"sk-red": ["namespace=red", "cache=private"], "sk-blue": ["namespace=blue"], "sk-plain": []}
    keys, journal = tmp_path / "keys", tmp_path / "journal"
    keys.write_text("\n".join(file_line(key, "submit", options) for key, options in made.items()))
    with processes(tmp_path, model=f"journal={journal}", SEMEL_API_KEYS_FILE=str(keys)) as running:

        def computed() -> int:
            return len(journal.read_text().splitlines())

        rows = {}
        for key in made:
            with Client(running.url, api_key=key) as client:
                before = computed()
                rows[key] = client.embed(["said by all"], model="fake")
                client.embed(["said by all"], model="fake")
                job = client.wait(client.submit([f"in a job {i}" for i in range(40)], model="fake").id)
                assert client.results(job.id).shape == (40, 16)
                new = computed() - before
                assert new == (0 if key == "sk-plain" else 41), f"{key} had {new} texts computed"
        assert (rows["sk-red"] == rows["sk-blue"]).all()

        line = '{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "said by all"}}\n'
        red, blue = (openai.OpenAI(base_url=f"{running.url}/v1", api_key=key) for key in ("sk-red", "sk-blue"))
        file = red.files.create(file=("in.jsonl", line.encode()), purpose="batch")
        order = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        with pytest.raises(openai.NotFoundError):
            blue.batches.create(**order)  # type: ignore[arg-type]
        batch, before = red.batches.create(**order), computed()  # type: ignore[arg-type]
        wait_until(lambda: red.batches.retrieve(batch.id).status == "completed", timeout_s=60)
        assert computed() == before, "the text has a vector in this namespace"
        output = red.batches.retrieve(batch.id).output_file_id
        assert output is not None
        assert '"custom_id":"1"' in red.files.content(output).text
        with pytest.raises(openai.NotFoundError):
            blue.files.content(output)
