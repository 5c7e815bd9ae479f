"""The end of a worker whose device is lost or hangs; other workers take over its work."""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable

from semel.backends.engine import Engine
from semel.errors import BackendError
from semel.log import get_log

log = get_log("worker")

_HUNG_FACTOR = 20.0
"""A batch that takes this many times as long as usual hangs; it is not just slow."""

_LAST_WORDS_S = 5.0
"""How long `last_words` may take before the process ends anyway."""

_HUNG_EXIT = 70
"""EX_SOFTWARE of sysexits.h."""


class DeviceLoss:
    """Keeps the error that made this worker's device unusable, and ends the process in an orderly way.

    Attributes:
        error: the first error of the device; None while it works.
    """

    def __init__(self) -> None:
        self.error: BackendError | None = None

    def stop_worker(self, error: BackendError) -> None:
        """End this process: other workers take its chunks, and a fresh process may find the device working again."""
        if self.error is None:
            self.error = error
            log.error("the device is lost, this worker stops", reason=str(error))
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()


class HangWatch:
    """Ends this process when the device hangs, because its device thread can no longer be stopped or trusted.

    It watches batches, and the steps of loading a model: the load itself, health check, warm-up and unloading. Files
    are downloaded and hashed before, unwatched. A device thread that has ended by itself stops the worker in order, or
    the worker would beat and serve nothing.

    Args:
        loss: stops the worker when the device thread has ended.
        device: the name of the device, for the message.
        after_s: a batch must run for at least this long before it counts as hanging; the first batch, and a step of
            loading, for ten times this.
        last_words: called with the error before the process ends; it may take up to five seconds.
    """

    def __init__(
        self,
        engine: Engine,
        loss: DeviceLoss,
        *,
        device: str,
        after_s: float,
        last_words: Callable[[BackendError], None],
    ) -> None:
        self._engine = engine
        self._loss = loss
        self._device = device
        self._after_s = after_s
        self._last_words = last_words

    def look(self) -> None:
        """Check the device thread, its batch and the loads; end the process, and do not return, if the device hangs."""
        if self._engine.failure is not None:
            self._loss.stop_worker(self._engine.failure)
            return
        hang = self._engine.hangs(after_s=self._after_s, factor=_HUNG_FACTOR)
        if hang is None:
            return
        error = BackendError(
            f"{self._device} hangs: {hang.what} has been running for {hang.seconds:.0f} s; "
            "if it is slow and does not hang, raise SEMEL_HUNG_AFTER_S"
        )
        log.error("the device hangs, this worker ends; a dump of its threads follows", reason=str(error))
        faulthandler.dump_traceback(all_threads=True)
        # `last_words` uses the database, Redis and the device, each of which may hang as well.
        last_resort = threading.Timer(_LAST_WORDS_S, os._exit, (_HUNG_EXIT,))
        last_resort.daemon = True
        last_resort.start()
        self._last_words(error)
        os._exit(_HUNG_EXIT)
