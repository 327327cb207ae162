"""Jobs of a sweep that only pretend to train."""

import sys

from sparsejax.sweeps.trial import Job


class Pretended(Job):
    """A job whose training is a line of Python that gets the folder."""

    def __init__(self, script, folder, retries=0):
        super().__init__((), folder, retries)
        self.script = script

    def _command(self):
        return [sys.executable, "-c", self.script, str(self.folder)]
