"""Reads the checkpoints' steps and metadata in a run's workdir."""

import json


def steps_in(workdir):
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())


def meta(workdir, step):
    return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())
