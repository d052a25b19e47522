"""`builtin:fashion-dit`, retrained from the real images: classifier, VAE and DiT, each cached and resumable."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel
from torch import Tensor, nn

from agd_core.basics.atomic import replacing_folder, write_bytes, write_json
from agd_core.basics.checkpoint import Checkpoint, load_tensors, save_tensors, system_errors
from agd_core.basics.config import Config
from agd_core.builtin.fashion_mnist import CLASS_NAMES, DEFAULT_FOLDER, load_fashion_mnist, to_signed
from agd_core.evaluation.extractors.fashion_classifier import REFERENCE, FashionClassifier, FashionFeatures
from agd_core.evaluation.extractors.fashion_classifier import WEIGHTS as CLASSIFIER
from agd_core.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from agd_core.evaluation.metrics.reference import KEPT_FEATURES, Reference
from agd_core.evaluation.sampling import to_bytes
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.fashion.autoencoder import (
    AutoencoderRecipe,
    autoencoder_loop,
    build_autoencoder,
    encode_means,
    reconstruct,
)
from agd_core.pretraining.fashion.classifier import ClassifierRecipe, accuracy, classifier_loop
from agd_core.pretraining.fashion.transformer import (
    TransformerRecipe,
    build_transformer,
    pretraining_scheduler,
    transformer_loop,
)
from agd_core.report.plots import loss_plot
from flows.reference import describe, even_rows
from flows.stages.network_training import LOSSES, WEIGHTS, trained_network
from flows.workplace import Workplace
from storage.artefacts import Artefact


class FashionRecipe(Config):
    """The recipes of the three networks."""

    classifier: ClassifierRecipe = ClassifierRecipe()
    autoencoder: AutoencoderRecipe = AutoencoderRecipe()
    transformer: TransformerRecipe = TransformerRecipe()


def pretrain_fashion(data: Path | None, place: Workplace, recipe: FashionRecipe | None = None) -> dict[str, Any]:
    """Train all three, on the CPU, and assemble `fashion-dit` and `fashion-classifier` in the output folder.

    Args:
        data: folder of the idx files; None takes where Debian puts them.
        place: where to work.
        recipe: of the three networks; the shipped ones by default.

    Raises:
        InputError: the images are missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    recipe, place = recipe or FashionRecipe(), replace(place, device=torch.device("cpu"))
    pixels, labels = load_fashion_mnist("train", data or DEFAULT_FOLDER)
    signed = to_signed(pixels)
    seen = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    classifier = _classifier(recipe.classifier, signed, labels, seen, place)
    autoencoder = _autoencoder(recipe.autoencoder, signed, seen, place)
    transformer = _transformer(recipe.transformer, signed, labels, autoencoder, place)
    measured = _assemble_classifier(classifier, pixels, data or DEFAULT_FOLDER, place)
    measured |= _assemble_pipeline(autoencoder, transformer, pixels, place)
    curves = {a.stage: a.json(LOSSES, list[float]) for a in (classifier, autoencoder, transformer)}
    write_bytes(loss_plot(curves), place.output / "losses.png")
    write_json(measured, place.output / "pretrain.json")
    folders = {name: str(place.output / name) for name in ("fashion-dit", "fashion-classifier")}
    return {"artefacts": folders, "measured": measured}


def _classifier(recipe: ClassifierRecipe, images: Tensor, labels: Tensor, seen: str, place: Workplace) -> Artefact:
    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        model = FashionClassifier()
        return classifier_loop(model, images, labels, recipe, checkpoint), model

    return trained_network("classifier", {"recipe": recipe.identity(), "images": seen}, recipe.seed, start, place)


def _autoencoder(recipe: AutoencoderRecipe, images: Tensor, seen: str, place: Workplace) -> Artefact:
    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        model = build_autoencoder()
        ema = Ema(model, recipe.ema_decay)
        return autoencoder_loop(model, ema, images, recipe, checkpoint), ema.average

    return trained_network("autoencoder", {"recipe": recipe.identity(), "images": seen}, recipe.seed, start, place)


def _transformer(
    recipe: TransformerRecipe, images: Tensor, labels: Tensor, autoencoder: Artefact, place: Workplace
) -> Artefact:
    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        latents = encode_means(_load_autoencoder(autoencoder), images)
        model = build_transformer()
        ema = Ema(model, recipe.ema_decay)
        return transformer_loop(model, ema, latents / latents.std(), labels, recipe, checkpoint), ema.average

    identity = {"recipe": recipe.identity(), "autoencoder": autoencoder.digest, "images": autoencoder.key}
    return trained_network("transformer", identity, recipe.seed, start, place)


def _load_autoencoder(artefact: Artefact) -> AutoencoderKL:
    model = build_autoencoder()
    model.load_state_dict(load_tensors(artefact.path / WEIGHTS)[0])
    return model.eval()


def _load_transformer(artefact: Artefact) -> DiTTransformer2DModel:
    model = build_transformer()
    model.load_state_dict(load_tensors(artefact.path / WEIGHTS)[0])
    return model.eval()


def _assemble_classifier(artefact: Artefact, pixels: Tensor, data: Path, place: Workplace) -> dict[str, float]:
    """Write the extractor's folder: float16 weights, and the statistics of the real training images under them."""
    folder = place.output / "fashion-classifier"
    weights, _ = load_tensors(artefact.path / WEIGHTS)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_tensors(halved, folder / CLASSIFIER)
    extractor = FashionFeatures(folder, torch.device("cpu"))
    test_images, test_labels = load_fashion_mnist("test", data)
    with place.on_device("measure the classifier"):
        features = extractor.extract(pixels.permute(0, 2, 3, 1)).features
        measured = {"classifier_test_accuracy": accuracy(extractor.model, to_signed(test_images), test_labels)}
    kept = features[even_rows(len(features), KEPT_FEATURES)].half()
    images = describe(f"{len(features):,} images of Fashion-MNIST (train)", extractor)
    Reference(FeatureStatistics.of(features), kept, images).save(folder / REFERENCE)
    return measured


def _assemble_pipeline(
    autoencoder: Artefact, transformer: Artefact, pixels: Tensor, place: Workplace
) -> dict[str, float]:
    """Write the stock diffusers folder in float16 and measure what the VAE alone costs."""
    vae = _load_autoencoder(autoencoder)
    signed = to_signed(pixels)
    extractor = FashionFeatures(place.output / "fashion-classifier", torch.device("cpu"))
    with place.on_device("measure the autoencoder"):
        vae.register_to_config(scaling_factor=float(1 / encode_means(vae, signed).std()))
        reconstructed = reconstruct(vae, signed[:10_000])
        features = extractor.extract(to_bytes(reconstructed)).features
    pipeline = DiTPipeline(_load_transformer(transformer).half(), vae.half(), pretraining_scheduler())
    pipeline.register_to_config(id2label={str(label): name for label, name in enumerate(CLASS_NAMES)})
    with replacing_folder(place.output / "fashion-dit") as partial, system_errors():
        pipeline.save_pretrained(partial)
    return {
        "vae_mse": float((reconstructed - signed[:10_000]).square().mean()),
        "vae_fd": frechet_distance(extractor.shipped_reference().statistics, FeatureStatistics.of(features)),
    }
