"""Real images that are noised for the teacher: what each of them shows, and their latents.

A model with classes needs their labels, a model that takes prompts their captions: the teacher is asked for what an
image shows. Trajectories are balanced over classes or distinct captions as without images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.checkpoint import save_tensors
from agd_core.basics.config import BUILTIN
from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError, naming
from agd_core.basics.progress import Stopped
from agd_core.basics.safe_files import printable
from agd_core.data.states import ImageChoice
from agd_core.data.trajectory import CollectConfig
from agd_core.models.autoencoder import PIXELS_TOGETHER
from agd_core.models.model import BaseModel
from flows.builtin_images import open_builtin_images
from flows.reference import content_digest
from flows.tensors import Form, read_tensors
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.sources import ImageSource, open_images, stamp
from storage.sources.images import StoredImage
from storage.sources.kinds import Shown, read_shown

SETTING = "collect.images"
STAGE, VERSION = "image-latents", 1
LATENTS = "latents.safetensors"
_FLOAT_BYTES = 4
_IMAGES_TOGETHER = 32
"""Most images that are held decoded."""
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class RealImages:
    """Images of one place."""

    source: ImageSource
    prompts: tuple[str, ...]
    """Distinct captions in their order, as many as are collected; empty for a model with classes."""
    subjects: tuple[int, ...]
    """Of every image the number of the class or prompt that it shows; -1 where that is not collected."""

    def choice(self, seed: int) -> ImageChoice:
        """Which image each trajectory is made of."""
        shown = np.asarray(self.subjects, dtype=np.int64)
        by_subject = np.argsort(shown, kind="stable")
        first = np.searchsorted(shown[by_subject], np.arange(shown.max() + 1))
        return ImageChoice(tuple(np.split(by_subject, first)[1:]), seed)

    def chosen(self, config: CollectConfig) -> list[int]:
        """Numbers of the images that a collection is made of, ascending; its number of trajectories is decided."""
        choice = self.choice(config.seed)
        return sorted({choice.image(index) for index in range(config.trajectories or 0)})

    def identity(self, place: Workplace) -> str:
        """sha256 of the images and of what each shows; where they lie does not count.

        Raises:
            InputError: something cannot be read.
            Stopped: while reading, when asked to.
        """
        with naming(SETTING):
            return digest({"content": content_digest(self.source, place), "subjects": list(self.subjects)})

    def check(self, model: BaseModel) -> None:
        """Look at the first image.

        Raises:
            InputError: it is broken, or coloured where the model makes grey ones.
        """
        with naming(SETTING):
            _pixels(next(iter(self.source.images())), model)


def open_real_images(config: CollectConfig, model: BaseModel) -> RealImages:
    """What `collect.images` names.

    Raises:
        InputError: it cannot be read, does not tell what its images show, knows other classes than the model or lacks
            one of them, holds fewer captions than asked for, or prompts are given beside its captions.
    """
    if not model.class_names:
        source, captions = _captioned(config)
        prompts = tuple(dict.fromkeys(captions))[: config.prompt_count]
        numbers = {prompt: number for number, prompt in enumerate(prompts)}
        return RealImages(source, prompts, tuple(numbers.get(caption, -1) for caption in captions))
    if config.prompts:
        raise InputError("collect.prompts: this base model takes classes, not prompts; leave it out")
    source, labels = _opened(config, "labels")
    with naming(SETTING):
        known = {label: _class_number(label, model.class_names) for label in dict.fromkeys(labels)}
        if missing := set(range(len(model.class_names))) - set(known.values()):
            name = model.class_names[min(missing)]
            raise InputError(f"{printable(config.images)} holds no image of the class {name!r}; every class needs one")
    return RealImages(source, (), tuple(known[label] for label in labels))


def count_captions(config: CollectConfig) -> int:
    """How many distinct captions are collected; errors as of `open_real_images`."""
    captions = _captioned(config)[1]
    return config.prompt_count or len(set(captions))


def _captioned(config: CollectConfig) -> tuple[ImageSource, tuple[str, ...]]:
    if config.prompts:
        raise InputError(
            "collect.prompts: the captions of collect.images are the prompts; set it to null, or leave collect.images "
            "out to noise images that the teacher makes"
        )
    source, captions = _opened(config, "captions")
    if config.prompt_count and (known := len(set(captions))) < config.prompt_count:
        raise InputError(
            f"collect.prompt_count: {printable(config.images)} holds {known} different captions, {config.prompt_count} "
            "are asked for"
        )
    return source, captions


def image_latents(
    images: RealImages, chosen: Sequence[int], model: BaseModel, place: Workplace
) -> Mapping[int, Tensor]:
    """Latents of these images by their number, as an artefact; each image is encoded by itself.

    Args:
        images: where they are.
        chosen: numbers of the images, ascending.
        model: whose VAE encodes them, at its own size: the short side resized, the centre cut out.
        place: where the artefact goes.

    Raises:
        InputError: an image is broken, or they have changed while they were read.
        Stopped: when asked to; run again to start this stage again.
    """
    with naming(SETTING):
        before = stamp(images.source)
        content = content_digest(images.source, place)
    identity = {
        "version": VERSION,
        "vae": model.decoder_fingerprint,
        "latent_shape": list(model.latent_shape),
        "images": content,
        "chosen": digest(list(chosen)),
    }

    def work(artefact: Artefact) -> None:
        place.require_space(len(chosen) * int(np.prod(model.latent_shape)) * _FLOAT_BYTES, "latents of the real images")
        place.announce(f"{STAGE}: {len(chosen):,} of {len(images.source):,} real images through the VAE's encoder")
        with place.on_device(f"encode {len(chosen):,} real images"):
            encoded = _encoded(images.source, chosen, model, place)
        if stamp(images.source) != before:
            raise InputError(f"{SETTING}: {printable(images.source.place)} has changed while it was read")
        save_tensors({"numbers": torch.tensor(chosen), "latents": encoded}, artefact.path / LATENTS)

    return _read(place.produce(STAGE, identity, work, title="latents of the real images"), model)


def _encoded(source: ImageSource, chosen: Sequence[int], model: BaseModel, place: Workplace) -> Tensor:
    wanted, progress = set(chosen), place.progress("encode images")
    rows = max(1, min(_IMAGES_TOGETHER, PIXELS_TOGETHER // model.pixels**2))
    images = (_pixels(image, model) for number, image in enumerate(source.images()) if number in wanted)
    parts: list[Tensor] = []
    with naming(SETTING):
        while batch := list(islice(images, rows)):
            done = sum(map(len, parts))
            if place.should_stop():
                raise Stopped(f"stopped with {done} of {len(chosen)} real images encoded; run it again to start anew")
            parts.append(model.encode(torch.cat(batch)).cpu())
            progress(done + len(batch), len(chosen), "images")
    return torch.cat(parts)


def _read(artefact: Artefact, model: BaseModel) -> dict[int, Tensor]:
    forms = {"numbers": Form(1, (torch.int64,)), "latents": Form(1 + len(model.latent_shape), (torch.float32,))}
    tensors = read_tensors(artefact, LATENTS, forms)
    return dict(zip(tensors["numbers"].tolist(), tensors["latents"], strict=True))


def _pixels(image: StoredImage, model: BaseModel) -> Tensor:
    """float32 `[1, channels, side, side]` in [-1, 1]; grey is repeated where the model makes colours."""
    pixels, channels = image.pixels(model.pixels), model.autoencoder.image_channels
    if pixels.shape[-1] > channels:
        raise InputError(f"{image.name} has colours; this base model makes grey images")
    signed = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    return signed.expand(-1, channels, -1, -1)


def _opened(config: CollectConfig, shown: Shown) -> tuple[ImageSource, tuple[str, ...]]:
    """The images, and what is told of every one."""
    place = str(config.images)
    with naming(SETTING):
        if place.startswith(BUILTIN):
            builtin = open_builtin_images(place)
            return builtin, builtin.shown(shown)
        return open_images(place), read_shown(place, shown)


def _class_number(label: str, class_names: Sequence[str]) -> int:
    if label in class_names:
        return class_names.index(label)
    if label.isdecimal() and int(label) < len(class_names):
        return int(label)
    names = ", ".join(class_names[:_SHOWN_NAMES])
    raise InputError(
        f"{printable(label)!r} is no class of this base model; allowed are its {len(class_names)} names ({names}, ...) "
        f"and the numbers 0 to {len(class_names) - 1}"
    )
