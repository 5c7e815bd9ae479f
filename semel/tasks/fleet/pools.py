"""The choice among the device pools that serve a vector space."""

from collections.abc import Sequence

from semel.tasks.fleet.card import WorkerCard
from semel.values.device import UseCase, best_of, device_kind
from semel.values.model import base_name


def best_pool(cards: Sequence[WorkerCard], *, model: str, use_case: UseCase) -> tuple[str, str]:
    """The kind of device to send work to, and why.

    Args:
        cards: live workers that serve the space, at least one. Imitated GPUs are chosen last.
        model: only measurements made with this model count.
        use_case: selects the order in which pools are preferred.
    """
    real = [card for card in cards if not card.software] or cards
    base = base_name(model)
    measured = {
        device_kind(card.device): card.measured for card in real if card.measured and card.measured.model == base
    }
    return best_of({device_kind(card.device) for card in real}, use_case=use_case, measured=measured)


def waits_for_worker(why: str) -> str:
    """The reason shown for a job that no live worker serves now."""
    return f"{why}; the job waits for one"
