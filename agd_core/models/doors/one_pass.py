"""One row through the network per image and step: a pipeline that asks for more guides by itself as well.

An adapter stands for guidance. In a pipeline that has it act and then guides by CFG (or by anything else) on top, the
image is guided twice. Whatever the pipeline's class, it is recognised by what it asks of the network.
"""

import threading
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.models.doors.running_call import FOR_CFG, RunningCall


class _Last(threading.local):
    """This thread's last guided pass."""

    network: Any = None
    step: Any = None
    """Kept, so that no later step is the same object."""

    def is_repeated(self, network: object, step: object) -> bool:
        """Whether this is one more pass of that step; it is the last one from here on."""
        repeated = self.network is network and self.step is step
        self.network, self.step = network, step
        return repeated


_LAST = _Last()


def check_one_pass(call: RunningCall, rows: int, adapter: str, network_key: object) -> None:
    """This pass of the network is the only one of its step, with one row per image.

    Args:
        call: the pipeline's call.
        rows: how many the adapter would guide.
        adapter: its name, for messages.
        network_key: an object that stands for the network.

    Raises:
        InputError: it is not, or the pipeline does not tell.
    """
    refused = f"{call.classes[0]}: adapter {adapter!r} guides by one row per image and step, "
    if call.images is None or call.step is None:
        raise InputError(f"{refused}and this pipeline does not say which it is at; {FOR_CFG}")
    if rows > call.images:
        raise InputError(
            f"{refused}this pipeline asks for {rows} rows where its images are {call.images}: it would guide twice; "
            f"{FOR_CFG}"
        )
    if _LAST.is_repeated(network_key, call.step):
        raise InputError(f"{refused}this pipeline asks for a second pass: it would guide twice; {FOR_CFG}")
