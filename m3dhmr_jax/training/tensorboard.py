"""Curves for TensorBoard, which may be lost without harm to the run that draws them."""

import time
from pathlib import Path

from absl import logging
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar


class TensorBoardWriter:
    """Scalars over steps, in a new file of `folder`; None is for a process that only listens.

    Written at once. tensorboardX's own `SummaryWriter` writes in a thread that dies on a full disk,
    and then waits for it for ever.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._writer = None
        self._lost = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            return
        event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._say_lost(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._say_lost(error)

    def _say_lost(self, error: OSError) -> None:
        if not self._lost:
            logging.error("%s: curves are being lost: %s", self._folder, error)
        self._lost = True
