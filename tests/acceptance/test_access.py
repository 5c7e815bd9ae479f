"""A server with API keys."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from semel.client import Client
from semel.errors import ForbiddenError, UnauthorizedError
from tests.support.processes import Processes, processes

KEYS = "sk-work:submit,sk-look:read"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("guarded"), SEMEL_API_KEYS=KEYS) as running:
        yield running


def test_nobody_gets_in_without_a_key(guarded: Processes) -> None:
    routes = httpx.get(f"{guarded.url}/openapi.json").json()["paths"]
    open_to_all = {"/health/live", "/health/ready", "/health"}
    for path, methods in routes.items():
        for method in methods:
            answer = httpx.request(method, guarded.url + path.replace("{job_id}", "x"), json={})
            assert (answer.status_code == 401) is (path not in open_to_all), path
    refused = httpx.get(f"{guarded.url}/v1/models", headers={"authorization": "Bearer nope"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_a_key_may_do_what_its_scope_says(guarded: Processes) -> None:
    with Client(guarded.url, api_key="sk-work") as worker:
        job = worker.wait(worker.submit(["a text"], model="fake").id)
        assert worker.embed(["a text"], model="fake").shape == (1, 16)
    with Client(guarded.url, api_key="sk-look") as reader:
        assert reader.job(job.id).status == "completed"
        assert reader.results(job.id).shape == (1, 16)
        with pytest.raises(ForbiddenError, match="takes one that may submit"):
            reader.embed(["a text"], model="fake")
        with pytest.raises(ForbiddenError):
            reader.cancel(job.id)
    with Client(guarded.url) as nobody, pytest.raises(UnauthorizedError, match="Authorization: Bearer"):
        nobody.jobs()


def test_the_clients_that_people_use_send_their_key(guarded: Processes) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-work") as client:
        assert len(client.embeddings.create(model="fake", input="x").data[0].embedding) == 16
    stranger = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-no", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="unknown here"):
        stranger.models.list()
    assert httpx.get(f"{guarded.url}/v1/jobs", headers={"x-api-key": "sk-look"}).status_code == 200
