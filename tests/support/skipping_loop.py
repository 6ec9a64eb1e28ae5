"""An event loop whose time can be moved on, so that no test waits for a timeout.

``with asyncio.Runner(loop_factory=SkippingLoop) as runner: runner.run(...)``
"""

import asyncio


class SkippingLoop(asyncio.SelectorEventLoop):
    """The usual loop, some seconds ahead."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


def skip(seconds: float) -> None:
    """Let the running loop's timers believe that so much time has passed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skipped_s += seconds
