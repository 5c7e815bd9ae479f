"""A client of the API in this process."""

from collections.abc import Iterator

import pytest

from semel.client import Client
from tests.support.remote import client_of_api
from tests.support.service import service


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with service(tmp_path_factory.mktemp("integrations")) as api, client_of_api(api.http) as made:
        yield made
