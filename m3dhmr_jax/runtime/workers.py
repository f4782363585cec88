"""What every worker process does first."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Ends this process when its parent ends, even if the parent is killed.

    An orphan would wait for work forever, or keep writing alongside the parent's successor.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
