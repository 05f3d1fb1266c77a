"""The import of the authors' weights, against a plain restatement of their network's formulas."""

import argparse
import collections
import math
import os
import pathlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import umtlib
from conftest import tone
from umtlib import checkpoint
from umtlib.checkpoint import official
from umtlib.errors import CheckpointError
from umtlib.generation import translation
from umtlib.generation.perform import perform

NAMES = ("Bach_Solo_Cello", "Beethoven Solo-Piano")
ENCODER, DECODER = (2, 3), (2, 10)  # blocks, layers
CHANNELS, LATENT, SKIP, POOL = 6, 5, 7, 50


def namespace(layers=10, **changes):
    values = {
        "data": [pathlib.Path("musicnet/preprocessed") / name for name in NAMES],
        "latent_d": LATENT, "encoder_blocks": ENCODER[0], "encoder_layers": ENCODER[1],
        "encoder_channels": CHANNELS, "encoder_func": "relu", "encoder_pool": POOL,
        "blocks": DECODER[0], "layers": layers, "kernel_size": 2, "residual_channels": CHANNELS,
        "skip_channels": SKIP, "d_layers": 3, "d_channels": 4, "n_datasets": len(NAMES),
        "lr": 1e-3, "distributed": True, "checkpoint": "", "grad_clip": None,
    }  # fmt: skip
    return argparse.Namespace(**values | changes)


def random_state(generator, shapes):
    """Weights and biases of convolutions, (out, in, kernel) by name, of an order of magnitude
    at which every nonlinearity works."""
    state = collections.OrderedDict()
    for name, shape in shapes.items():
        bound = (shape[1] * shape[2]) ** -0.5
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * bound
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.2
    return state


C = CHANNELS
ENCODER_SHAPES = {
    "start": (C, 1, 3), "conv_1x1": (LATENT, C, 1),
    **{f"dilated_convs.{n}.dilated_conv": (C, C, 3) for n in range(math.prod(ENCODER))},
    **{f"dilated_convs.{n}.conv_1x1": (C, C, 1) for n in range(math.prod(ENCODER))},
}  # fmt: skip
CLASSIFIER_SHAPES = {"convs.0": (4, LATENT, 1), "convs.2": (4, 4, 1), "convs.4": (4, 4, 1),
                     "convs.6": (len(NAMES), 4, 1)}  # fmt: skip


def decoder_shapes(layers):
    shapes = {"first_conv": (C, 1, 2), "skip_conv": (SKIP, C, 1), "condition": (SKIP, LATENT, 1),
              "fc": (SKIP, SKIP, 1), "logits": (256, SKIP, 1)}  # fmt: skip
    for n in range(DECODER[0] * layers):
        shapes |= {f"layers.{n}.causal": (2 * C, C, 2), f"layers.{n}.condition": (2 * C, LATENT, 1),
                   f"layers.{n}.residual": (C, C, 1), f"layers.{n}.skip": (SKIP, C, 1)}  # fmt: skip
    return shapes


def write(folder, layers=10, zipped=True, **changes):
    """A folder as the authors' code leaves it; ``zipped=False`` is the format of PyTorch 1.0."""
    generator = torch.Generator().manual_seed(layers)
    encoder = random_state(generator, ENCODER_SHAPES)
    classifier = random_state(generator, CLASSIFIER_SHAPES)
    save = {"_use_new_zipfile_serialization": zipped}
    folder.mkdir(exist_ok=True)
    torch.save([namespace(layers, **changes), 123], folder / "args.pth", **save)
    files = []
    for number in range(len(NAMES)):
        decoder = random_state(generator, decoder_shapes(layers))
        optimiser = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": []}
        files.append({
            "encoder_state": encoder, "decoder_state": decoder, "discriminator_state": classifier,
            "model_optimizer_state": optimiser, "dataset": number, "d_optimizer_state": optimiser,
        })  # fmt: skip
        for which in ("last", "best"):
            torch.save(files[-1], folder / f"{which}model_{number}.pth", **save)
    return files


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "w")
    return tmp_path / "w"


def conv(state, name, x, **settings):
    return F.conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], **settings)


def causal(state, name, x, dilation):
    return conv(state, name, F.pad(x, (dilation, 0)), dilation=dilation)


def stated_encoder(state, codes):
    h = conv(state, "start", codes[:, None] / 255 - 0.5, padding=1)
    for n in range(ENCODER[0] * ENCODER[1]):
        d = 2 ** (n % ENCODER[1])
        inner = conv(state, f"dilated_convs.{n}.dilated_conv", h, dilation=d, padding=d)
        h = h + conv(state, f"dilated_convs.{n}.conv_1x1", inner.relu())
    return F.avg_pool1d(conv(state, "conv_1x1", h), POOL)


def stated_decoder(state, codes, latent, layers):
    condition = latent.repeat_interleave(POOL, dim=2)
    signal = F.pad((codes / 255 - 0.5)[:, None], (1, 0))[:, :, :-1]
    h = causal(state, "first_conv", signal, 1)
    skips = conv(state, "skip_conv", h)
    for n in range(DECODER[0] * layers):
        both = causal(state, f"layers.{n}.causal", h, 2 ** (n % layers))
        both = both + conv(state, f"layers.{n}.condition", condition)
        gated = both[:, :CHANNELS].sigmoid() * both[:, CHANNELS:].tanh()
        h = h + conv(state, f"layers.{n}.residual", gated)
        skips = skips + conv(state, f"layers.{n}.skip", gated)
    out = conv(state, "fc", skips.relu()) + conv(state, "condition", condition)
    return conv(state, "logits", out.relu())


def stated_classifier(state, h):
    for n in (0, 2, 4):
        h = F.elu(conv(state, f"convs.{n}", h))
    return conv(state, "convs.6", h).mean(2)


@pytest.mark.parametrize("layers, zipped", [(10, True), (14, False)])
def test_outputs_are_those_of_the_authors_network(tmp_path, layers, zipped):
    files = write(tmp_path / "w", layers, zipped)
    model = umtlib.load_official(tmp_path / "w")
    # Long enough that the largest dilation of either net, 512 or 8192, sees real samples.
    samples = (2 ** (layers - 1) // POOL + 9) * POOL
    codes = torch.randint(256, (2, samples), generator=torch.Generator().manual_seed(1))
    latent = model.encode(codes)
    assert (latent - stated_encoder(files[0]["encoder_state"], codes)).abs().max() < 1e-4
    assert latent.std() > 0.01
    for name, content in zip(model.domains, files, strict=True):
        wanted = stated_decoder(content["decoder_state"], codes, latent, layers)
        found = model.decoders[name](codes, latent)
        assert (found - wanted).abs().max() < 1e-4
        assert wanted.std() > 0.1
    wanted = stated_classifier(files[0]["discriminator_state"], latent)
    assert (model.classifier(latent) - wanted).abs().max() < 1e-4


def test_names_mulaw_and_a_round_trip(folder, tmp_path):
    model = official.load_official(folder)
    assert model.domains == ("bach_solo_cello", "beethoven_solo-piano")
    assert model.config.mulaw == "official" and not model.training
    checkpoint.save(model, tmp_path / "model")
    again = umtlib.load(tmp_path / "model")
    assert again.config == model.config
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    args = namespace()
    del args.encoder_pool  # then it is 800
    torch.save([args, 1], folder / "args.pth")
    named = official.load_official(folder, domains=["a", "b"], weights="best")
    assert named.domains == ("a", "b") and named.config.encoder.pool == 800


def test_the_authors_mulaw_travels_with_the_model(umt, folder, tmp_path):
    names = ("--domain", "cello", "--domain", "piano")
    imported = umt("import-official", folder, "--out", tmp_path / "m", *names)
    assert imported[0] == 0 and "cello, piano" in imported[1]
    model = umtlib.load(tmp_path / "m")
    x = torch.cat([torch.linspace(-1, 1, 4001), torch.tensor([0.0, 1e-6, -1e-6])])
    companded = x.sign() * torch.log(1 + 255 * x.abs()) / math.log(256)
    scaled = (companded + 1) / 2 * 255
    away = (scaled % 1 - 0.5).abs() < 0.499  # from where rounding decides
    assert torch.equal(model.to_codes(x)[away], scaled.long()[away]) and away.float().mean() > 0.99
    y = 2 * (torch.arange(256.0) - 128) / 256
    expanded = y.sign() * (256 ** y.abs() - 1) / 255
    assert (model.to_waveform(torch.arange(256)) - expanded).abs().max() < 1e-6
    # What is performed are values of that pair, and not of torchaudio's.
    heard = translation.hear(model, [tone().astype(np.float32)], 800)
    made = torch.cat([piece for _, piece in perform(model, ["piano"], [heard])], dim=1).unique()
    assert len(made) > 20 and (made[:, None] - expanded).abs().min(1).values.max() < 1e-6


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def one_line(folder, words, **settings):
    with pytest.raises(CheckpointError) as caught:
        official.load_official(folder, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name, zipped", [("args.pth", True), ("lastmodel_1.pth", False)])
def test_a_foreign_pickle_is_not_run(folder, tmp_path, name, zipped):
    trap = tmp_path / "trap"
    torch.save([Hostile(trap)], folder / name, _use_new_zipfile_serialization=zipped)
    one_line(folder, "was not read")
    assert not trap.exists()


@pytest.mark.parametrize("keep, zipped", [(0, True), (0.5, False), (0.99, True)])
def test_a_truncated_file(tmp_path, keep, zipped):
    write(tmp_path / "w", zipped=zipped)
    path = tmp_path / "w/lastmodel_0.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    one_line(tmp_path / "w", "lastmodel_0.pth")


@pytest.mark.parametrize("name, words", [
    ("lastmodel_1.pth", "name the folder"), ("args.pth", "name the folder"),
])  # fmt: skip
def test_missing_files(folder, name, words):
    (folder / name).unlink()
    one_line(folder, f"{name} is missing; {words}")


@pytest.mark.parametrize("changes, words", [
    ({"layers": 9}, "args.pth: Unexpected"), ({"layers": 11}, "not as args.pth says"),
    ({"residual_channels": 8}, "do not fit"), ({"residual_channels": 10**12}, "channels = 1000"),
    ({"latent_d": None}, "latent = None"), ({"encoder_func": "glu"}, "encoder_func"),
    ({"kernel_size": 3}, "kernel_size"), ({"data": ["a/x", "b/x"]}, "name the domains yourself"),
    ({"n_datasets": 3}, "has 3 domains, not 2"), ({"data": None}, "name the domains yourself"),
])  # fmt: skip
def test_args_that_do_not_fit(folder, changes, words):
    torch.save([namespace(**changes), 1], folder / "args.pth")
    one_line(folder, words)


@pytest.mark.parametrize("part, key, value, words", [
    ("decoder_state", "fc.weight", torch.full((SKIP, SKIP, 1), torch.nan), "no finite weights"),
    ("decoder_state", "fc.weight", "a string", "no finite weights"),
    ("encoder_state", 7, torch.zeros(2), "encoder_state[7] holds no"),
    ("decoder_state", "fc.weight", torch.zeros(2), "not as args.pth says"),
    ("decoder_state", "more.weight", torch.zeros(2), "do not fit args.pth: Unexpected"),
    ("encoder_state", "start.bias", torch.ones(CHANNELS), "another encoder"),
    ("discriminator_state", "convs.9.bias", torch.zeros(2), "do not fit"),
])  # fmt: skip
def test_states_that_do_not_fit(folder, part, key, value, words):
    path = folder / f"lastmodel_{int(part == 'encoder_state')}.pth"
    content = torch.load(path, weights_only=True)
    content[part][key] = value
    torch.save(content, path)
    one_line(folder, words)


def test_renamed_and_foreign_files(folder):
    last = folder / "lastmodel_1.pth"
    last.write_bytes((folder / "lastmodel_0.pth").read_bytes())
    one_line(folder, "holds domain 0")
    for foreign in (
        {"model": {}},
        dict.fromkeys(("encoder_state", "decoder_state", "discriminator_state")),
    ):
        torch.save(foreign, last)
        one_line(folder, "it lacks encoder_state")
    one_line(folder, "has 2 domains, not 1", domains=["a"])
    torch.save({"a": 1}, folder / "args.pth")
    one_line(folder, "no Namespace")
