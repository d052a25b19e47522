"""diffusers' UNet without text, told a class."""

import torch

from agd_core.models.backbones.base import AdapterSite, Backbone
from agd_core.models.condition import Condition
from agd_core.models.doors.doors import DoubledBatch


class ThrowawayBackbone(Backbone):
    class_name = "UNet2DModel"
    component = "unet"
    pipelines = ("ThrowawayPipeline",)
    leading_arguments = ("sample", "timestep", "class_labels")
    door = DoubledBatch(("ThrowawayPipeline",), conditional_half=0)

    def __init__(self, network):
        super().__init__(network)
        self.classes = network.config.num_class_embeds - 1

    @property
    def sites(self):
        return (AdapterSite("mid_block.attentions.0", self.network.config.block_out_channels[-1], "map"),)

    @property
    def embedding_widths(self):
        return (self.network.class_embedding.embedding_dim,) * 2

    def call(self, latents, timestep, condition):
        return self.network(latents, timestep, condition["class_labels"], return_dict=False)[0]

    def condition_of(self, arguments):
        return Condition(class_labels=arguments["class_labels"])

    @classmethod
    def empty_condition(cls, config, rows, tokens):
        return Condition(class_labels=torch.empty(rows, dtype=torch.int64))

    def embed_timestep(self, timestep):
        return self.network.time_embedding(self.network.time_proj(timestep))

    def embed_condition(self, condition):
        return self.network.class_embedding(condition["class_labels"])[:, None]
