"""A method may hook the network itself: it then acts on the call that the adapters let through, and on what it says."""

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.methods import Trained
from agd_core.methods.attached import Attached
from agd_core.models.ask import UNKNOWN
from agd_core.models.backbones import backbone_of
from agd_core.models.doors.doors import Limits
from agd_core.pipelines.network_adapters import NetworkAdapters
from tests.agd_core.pipelines.stock import CFG, CONFIG, PREDICTIONS, RANGE, images, network_of, open_miniature


class Watching(Attached):
    """Notes the rows that enter the network, and what is asked for."""

    def __init__(self, network):
        self.backbone, self.seen = backbone_of(network), []
        self.handle = network.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, network, args, kwargs):
        self.seen.append((len(self.backbone.read_call(args, kwargs).latents), self.call and self.call.ask))

    def detach(self):
        self.handle.remove()


class Watch(Trained):
    """A method that changes nothing."""

    def __init__(self):
        super().__init__(CONFIG)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def attach(self, network):
        self.watching = Watching(network)
        return self.watching


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd3"])
def test_it_runs_behind_the_adapters_own_hook(name):
    pipe, watch = open_miniature(name), Watch()
    limits = Limits("watch", RANGE, PREDICTIONS.get(name, "epsilon"), CFG)
    NetworkAdapters(network_of(pipe)).add(network_of(pipe), watch, limits)
    images(pipe, 4.0)
    assert len(watch.watching.seen) >= 2
    for rows, ask in watch.watching.seen:
        assert (rows, len(ask)) == (1, 1), "the conditional half of a doubled batch"
        assert ask.null is UNKNOWN
        assert ask.guidance_scale.tolist() == [4.0]
    watch.watching.seen.clear()
    images(pipe, 1.0)
    assert {ask for _, ask in watch.watching.seen} == {None}, "without guidance it is not asked"


def test_a_network_that_takes_no_adapter_keeps_no_hook():
    pipe, watch = open_miniature("tiny-sd"), Watch()
    pipe.unet.config.time_cond_proj_dim = 32
    with pytest.raises(InputError, match="guidance-distilled already"):
        NetworkAdapters(pipe.unet).add(pipe.unet, watch, Limits("watch", RANGE, "epsilon", CFG))
    assert not pipe.unet._forward_pre_hooks
