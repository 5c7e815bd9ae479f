"""What a caller sees: the services of their namespace. What belongs to others does not exist there.

Routes receive these services and need no checks of their own, so that none can be forgotten.
"""

from dataclasses import replace

from semel.api.services import Services
from semel.rerank import Reranker
from semel.values.job import Submitter


class Tenants:
    """The services of each namespace.

    Args:
        services: those of the whole server.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._views: dict[tuple[str, str, bool], Services] = {}

    def view(self, submitter: Submitter, *, sees_all: bool) -> Services:
        """The services for a caller.

        Args:
            sees_all: for those who see the jobs, files and batches of all namespaces.
        """
        if sees_all and not submitter.namespace:
            return self._services
        place = (submitter.namespace, submitter.cache_namespace, sees_all)
        if place not in self._views:
            self._views[place] = self._scoped(submitter, sees_all=sees_all)
        return self._views[place]

    def _scoped(self, submitter: Submitter, *, sees_all: bool) -> Services:
        services, stores, namespace = self._services, self._services.stores, submitter.namespace
        catalog = stores.catalog.within(submitter.cache_namespace)
        stores = replace(stores, catalog=catalog, idempotency=stores.idempotency.within(namespace))
        if not sees_all:
            files = stores.files.within(namespace)
            stores = replace(
                stores,
                jobs=stores.jobs.within(namespace),
                counts=stores.counts.within(namespace),
                files=files,
                uploads=stores.uploads.within(namespace, files),
                batches=stores.batches.within(namespace),
            )
        return replace(services, stores=stores, reranker=Reranker(services.pipeline, catalog))
