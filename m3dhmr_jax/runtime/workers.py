"""What every worker process does first."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Ends this process when its parent ends, also if that is killed: nobody else would.

    Left alone, it would wait for work for ever, or go on to write beside the parent's successor.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
