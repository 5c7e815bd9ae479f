"""Gives a Python process another clock: with this folder on PYTHONPATH, SKEW_S seconds are added to the time.

Only the wall clock differs, as on a host whose clock was never set; waits and the monotonic clock do not. (libfaketime
0.9.10 cannot do this for Python 3.11: with it, `time.sleep` fails.)
"""

import os
import time

_SKEW_S = float(os.environ["SKEW_S"])
_now, _now_ns = time.time, time.time_ns
time.time = lambda: _now() + _SKEW_S
time.time_ns = lambda: _now_ns() + int(_SKEW_S * 1e9)
