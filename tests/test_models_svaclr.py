import subprocess
import sys

import pytest
import torch

from coaug.config import ConfigError, build, dump
from coaug.models import METHODS, get_method
from coaug.models.svaclr import InfoNCE, SvaCLR
from coaug.pipelines.batch import Batch

TINY = {"width": 4, "video_blocks": [1, 1, 1, 1], "hidden": 16, "projection": 8}


def make_batch(b: int, v: int, *, video: bool = True, audio: bool = True) -> Batch:
    torch.manual_seed(1)
    return Batch(
        video=torch.randn(b, v, 3, 4, 16, 16) if video else None,
        audio=torch.randn(b, v, 1, 20, 30) if audio else None,
        video_pts=torch.zeros(b, v, 4),
        audio_pts=torch.zeros(b, v, 2),
        speed=torch.ones(b, v, 2),
        direction=torch.ones(b, v, 2),
        sample_id=torch.arange(b),
        valid=torch.ones(b, dtype=torch.bool),
        label=torch.zeros(b, dtype=torch.int64),
        epoch=0,
        step=0,
    )


def make(cls=SvaCLR, **options) -> SvaCLR:
    torch.manual_seed(0)
    return cls(build(cls.Config, TINY | options))


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"pairs": "all", "mapping": "mlp"}, {"weights": "none"}])
def test_embeds_and_learns_from_any_number_of_views(views, options):
    method, batch = make(**options), make_batch(4, views)
    embeddings = method.embed(batch)
    assert {k: tuple(e.shape) for k, e in embeddings.items()} == {
        "y_video": (4, views, 32),
        "y_audio": (4, views, 32),
        "z_video": (4, views, 8),
        "z_audio": (4, views, 8),
    }
    for name in ("z_video", "z_audio"):
        torch.testing.assert_close(embeddings[name].norm(dim=-1), torch.ones(4, views))
    loss, _ = method.objective(embeddings, batch.valid)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_rows_keep_their_samples_and_views():
    method, batch = make().eval(), make_batch(3, 2)
    whole = method.embed(batch)
    for row in range(3):
        for name, part in method.embed(batch[row : row + 1]).items():
            torch.testing.assert_close(part[0], whole[name][row])


def test_embeddings_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = make().embed(make_batch(2, 2))
    assert {e.dtype for e in embeddings.values()} == {torch.float32}


def test_features_are_embeddings_under_the_evaluators_names():
    method, batch = make().eval(), make_batch(2, 3)
    features, embeddings = method.features(batch), method.embed(batch)
    names = {"video_z": "z_video", "audio_z": "z_audio", "video_pool": "y_video", "audio_pool": "y_audio"}
    for ours, theirs in names.items():
        torch.testing.assert_close(features[ours], embeddings[theirs])


def test_features_of_one_modality():
    assert set(make().features(make_batch(2, 1, video=False))) == {"audio_z", "audio_pool"}
    with pytest.raises(ConfigError, match=r"data\.modalities.*'audio' is missing"):
        make().embed(make_batch(2, 1, audio=False))


def test_encoders_can_be_taken_away():
    encoders = make().encoders()
    assert set(encoders) == {"video", "audio"}
    assert encoders["audio"](torch.randn(2, 1, 40, 99)).shape == (2, 32)


def test_baseline_is_the_same_network_without_weights():
    soft, plain, batch = make().eval(), make(InfoNCE).eval(), make_batch(4, 2)
    assert plain.config.weights == "none"
    plain.load_state_dict(soft.state_dict())
    assert soft.objective(soft.embed(batch), batch.valid)[1].keys() == {"lambda.true", "lambda.shuffled"}
    loss, figures = plain.objective(plain.embed(batch), batch.valid)
    assert not figures
    weightless = make(clamp=[1.0, 1.0]).eval()  # every weight clamped to 1
    torch.testing.assert_close(loss, weightless.objective(weightless.embed(batch), batch.valid)[0])


def test_default_config_is_the_papers():
    config = SvaCLR.Config()
    assert (config.width, config.video_blocks, config.audio_blocks) == (64, (2, 2, 2, 2), (1, 1, 1, 1))
    assert (config.temperature, config.clamp, config.affinity_temperature) == (0.07, (0.1, 2.0), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 16}, "unknown key 'widht'; did you mean 'width'"),
        ({"temperature": 0.0}, "temperature: .*greater than 0"),
        ({"clamp": [2.0, 0.1]}, "clamp: write the lower bound first"),
        ({"pairs": "some"}, "pairs: .*'diagonal' or 'all'"),
        ({"video_blocks": [1, 1, 1]}, "video_blocks"),
    ],
)
def test_config_errors_name_the_key(options, message):
    with pytest.raises(ConfigError, match=message):
        build(SvaCLR.Config, options)


def test_the_baseline_refuses_weights():
    with pytest.raises(ConfigError, match="weights"):
        build(InfoNCE.Config, {"weights": "soft"})


@pytest.mark.parametrize("cls", [SvaCLR, InfoNCE])
def test_config_survives_a_round_trip(cls, tmp_path):
    from coaug.config import read

    (tmp_path / "c.yaml").write_text(dump(cls.Config(clamp=None)))
    assert build(cls.Config, read(tmp_path / "c.yaml")) == cls.Config(clamp=None)


def test_registry_finds_every_method():
    assert get_method("svaclr") is SvaCLR
    assert get_method("infonce") is InfoNCE
    assert all(hasattr(get_method(name), "Config") for name in METHODS)


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown method 'svaclt'; did you mean 'svaclr'"):
        get_method("svaclt")
    with pytest.raises(ConfigError, match="there are svaclr, infonce"):
        get_method("zzz")


def test_the_registry_imports_no_method_before_it_is_asked_for():
    program = "import sys, coaug.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
