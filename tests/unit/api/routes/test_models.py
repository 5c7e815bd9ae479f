"""GET /v1/models in this process."""

from semel.api.dialects.openai import ModelObject
from tests.support.service import Service
from tests.support.workers import no_worker


def listed(api: Service) -> dict[str, ModelObject]:
    body = api.http.get("/v1/models").json()
    assert body["object"] == "list"
    return {item["id"]: ModelObject.model_validate(item) for item in body["data"]}


def test_every_served_model_is_listed_once_with_its_prompts(api: Service) -> None:
    models = listed(api)
    assert {"fake", "prompted", "reranker"} <= models.keys()
    assert (models["fake"].dimensions, models["fake"].max_tokens, models["fake"].prompts) == (16, 20, [])
    assert sorted(models["prompted"].prompts) == ["document", "query"]
    assert models["reranker"].dimensions == 1


def test_the_fingerprint_is_that_of_the_bare_text(api: Service) -> None:
    catalog = api.services.stores.catalog
    assert listed(api)["prompted"].fingerprint == catalog.space("prompted").fingerprint.hex()


def test_one_model_is_the_default(api: Service) -> None:
    assert [name for name, model in listed(api).items() if model.default] == ["fake"]


def test_a_model_stays_listed_when_its_worker_leaves(api: Service) -> None:
    assert listed(api)["fake"].live is True
    with no_worker(api):
        assert listed(api)["fake"].live is False


def test_a_worker_that_left_a_moment_ago_is_not_taken_from_a_kept_copy(api: Service) -> None:
    assert listed(api)["fake"].live is True
    try:
        api.services.fleet.roster.leave("inline")
        assert listed(api)["fake"].live is False
    finally:
        api.worker.beat(api.services)
        api.services.fleet.roster.live()
