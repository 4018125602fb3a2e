"""The garbage collector of a serving process.

CPython looks at every young container after 700 allocations more than releases, and now and then at all there are: some
hundred thousand, which last as long as the process. A request makes a few dozen that outlive the first look, so that a
busy proxy spent 10 to 15 % of its time on objects that were no garbage.
"""

import gc
import os
from typing import Final

OFF_VARIABLE: Final = "CPA_GC"
"""``default`` in this environment variable leaves the collector as it is."""
THRESHOLDS: Final = (10_000, 20, 50)
"""Young containers before a look at them; looks before one at the middle-aged ones; such before one at all."""


def settle() -> None:
    """What is there now is there to stay: take it out of the collector's sight, and let it look less often.

    For processes that serve and nothing else, once they are ready. What is frozen here and replaced later, e.g. the
    first configuration, is freed by its reference counts, as nearly everything is.
    """
    if os.environ.get(OFF_VARIABLE, "") == "default":
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
