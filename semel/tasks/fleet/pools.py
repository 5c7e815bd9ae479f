"""Which of the pools that serve a vector space takes its work."""

from collections.abc import Sequence

from semel.tasks.fleet.card import WorkerCard
from semel.values.device import UseCase, best_of, device_kind


def best_pool(cards: Sequence[WorkerCard], *, model: str, use_case: UseCase) -> tuple[str, str]:
    """The kind of device to send work to, and why.

    Args:
        cards: live workers that serve the space, one at the least. What imitates a GPU comes last.
        model: figures that were measured with another model say nothing about this one.
    """
    real = [card for card in cards if not card.software] or cards
    base = model.partition("@")[0]
    measured = {
        device_kind(card.device): card.measured for card in real if card.measured and card.measured.model == base
    }
    return best_of({device_kind(card.device) for card in real}, use_case=use_case, measured=measured)


def waits_for_worker(why: str) -> str:
    """The reason of a job that no live worker serves now, for people."""
    return f"{why}; the job waits for one"
