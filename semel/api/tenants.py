"""What a caller sees: the services of their namespace. What belongs to others does not exist there.

Routes receive these services and need no checks of their own, so that none can be forgotten.
"""

from dataclasses import replace

from semel.api.services import Services
from semel.rerank import Reranker
from semel.tasks.jobs.batches import BatchStore
from semel.tasks.jobs.files import FileStore
from semel.tasks.jobs.idempotency import IdempotencyKeys
from semel.tasks.jobs.store import JobStore
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
            sees_all: for an administrator, who sees the jobs, files and batches of all namespaces.
        """
        place = (submitter.namespace, submitter.cache_namespace, sees_all)
        if place not in self._views:
            self._views[place] = scoped(self._services, submitter, sees_all=sees_all)
        return self._views[place]


def scoped(services: Services, submitter: Submitter, *, sees_all: bool) -> Services:
    """The services of a namespace; the arguments are those of `Tenants.view`."""
    stores, settings, namespace = services.stores, services.settings, submitter.namespace
    catalog = stores.catalog.within(submitter.cache_namespace)
    stores = replace(stores, catalog=catalog, idempotency=IdempotencyKeys(stores.db, namespace=namespace))
    if not sees_all:
        window_s, retention_s = settings.job_window_s, settings.job_retention_s
        stores = replace(
            stores,
            jobs=JobStore(stores.db, window_s=window_s, retention_s=retention_s, namespace=namespace),
            batches=BatchStore(stores.db, namespace=namespace),
            files=FileStore(
                stores.db,
                settings.home / "files",
                retention_s=settings.file_retention_s,
                database_id=stores.installation,
                namespace=namespace,
            ),
        )
    return replace(services, stores=stores, reranker=Reranker(services.pipeline, catalog))
