"""Recipes: what is read, and what a person is told who mistyped one."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaug.config import ConfigError, build, dump, read
from coaug.pipelines.config import DataConfig, ViewConfig
from coaug.pipelines.recipe import RecipeError, Step, parse
from coaug.pipelines.spatial import CROPS
from coaug.pipelines.temporal import SCOPES, TRANSFORMS

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def recorder(name: str) -> Any:
    """A step that only remembers how it was called."""
    return lambda *positional, **keywords: (name, positional, keywords)


NAMES = ("shift", "fade", "_x1")
RECORDED = {name: recorder(name) for name in NAMES}


def spell(step: Step[Call]) -> str:
    """A step as a person writes it: words without quotation marks, no brackets where there is nothing in them."""
    name, positional, keywords = step.what
    written = [word(value) for value in positional] + [f"{k}={word(v)}" for k, v in keywords.items()]
    call = f"{name}({', '.join(written)})" if written else name
    return f"{step.scope}: {call}" if step.scope else call


def word(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
words = st.sampled_from(["linear", "noise", "any", "quarter_sine"])
values = st.one_of(numbers, words)
calls = st.tuples(
    st.sampled_from(NAMES),
    st.lists(values, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["alpha", "shape", "fill"]), values, max_size=2),
)
steps = st.builds(Step, calls, st.sampled_from(["", *SCOPES]))
spaces = st.sampled_from(["", " ", "  "])


@given(st.lists(steps, max_size=5), spaces)
def test_what_is_written_is_what_is_read(recipe: list[Step[Call]], space: str) -> None:
    text = f"{space}|{space}".join(spell(step) for step in recipe)
    assert parse(text, RECORDED, SCOPES) == tuple(recipe)


def test_the_empty_recipe() -> None:
    assert parse("", TRANSFORMS) == parse("  ", TRANSFORMS) == ()
    assert ViewConfig().steps == ()


@pytest.mark.parametrize(
    "text",
    [
        "speed(1, 2, 3, 4)",
        "reverse",
        "fade(0.5, shape=half_sine) | mask(0.5, 0)",
        "audio: pitch(12) | resample(0.5)",
        "audio: offset(0.5) | audio: duration(1.4, 2.8) | audio: volume(0.9, 1.1)",
        "unaligned: noise(pink, 5, 20) | video: stretch(0.7, 1.4) | aligned: shift(1)",
    ],
)
def test_a_config_keeps_its_recipe(text: str, tmp_path: Path) -> None:
    config = build(DataConfig, {"views": [{"temporal": text}]})
    path = tmp_path / "c.yaml"
    path.write_text(dump(config))
    again = build(DataConfig, read(path))
    assert again.views[0].temporal == text
    assert repr(again.views[0].steps) == repr(config.views[0].steps)
    assert len(config.views[0].steps) == text.count("|") + 1


def test_every_transform_says_how_it_is_written() -> None:
    """The first words of each docstring are a recipe that can be read."""
    for transform in TRANSFORMS.values():
        example = str(transform.__doc__).split("`")[1]
        assert isinstance(parse(example, TRANSFORMS, SCOPES)[0].what, transform)  # type: ignore[arg-type]


# --- scopes


@pytest.mark.parametrize("apply", ["aligned", "unaligned", "audio", "video"])
@pytest.mark.parametrize("scope", ["", *SCOPES])
def test_a_step_goes_by_its_own_scope_before_that_of_the_view(apply: Any, scope: str) -> None:
    view = ViewConfig(f"{scope}: fade(0.5) | reverse" if scope else "fade(0.5) | reverse", apply)
    fade, reverse = view.steps
    assert (fade.scope, reverse.scope) == (scope or apply, apply)
    for modality in ("video", "audio"):
        both = (fade.scope in ("aligned", "unaligned", modality), apply in ("aligned", "unaligned", modality))
        assert [type(t).__name__ for t in view.plays(modality)] == ["Fade"] * both[0] + ["Reverse"] * both[1]


@pytest.mark.parametrize("name", ["pitch(3)", "noise"])
@pytest.mark.parametrize("scope", SCOPES)
def test_pitch_and_noise_leave_pictures_alone(name: str, scope: str) -> None:
    view = ViewConfig(f"{scope}: {name}")
    assert view.plays("video") == ()
    assert len(view.plays("audio")) == (scope != "video")


# --- what is refused, and how

UNREADABLE = "a step is written as name(number, …), such as shift(0.5)"
CASES: dict[str, tuple[str, ...]] = {
    # names
    "resmple(0.5)": ("'resmple(0.5)'", "unknown step 'resmple'", "did you mean 'resample'?"),
    "shift(0.5) | fde(0.5)": ("'fde(0.5)'", "did you mean 'fade'?"),
    "qqq": ("'qqq'", *TRANSFORMS),
    # scopes
    "vdeo: shift(0.5)": ("'vdeo: shift(0.5)'", "'vdeo' is none of", *SCOPES),
    ": shift(0.5)": ("'' is none of", *SCOPES),
    "video: audio: shift(0.5)": ("'video: audio' is none of",),
    # form
    "shift(0.5": ("'shift(0.5'", UNREADABLE),
    "shift 0.5": ("'shift 0.5'", UNREADABLE),
    "shift[0.5]": (UNREADABLE,),
    "shift(0.5) |": ("shift(0.5) |", "an empty step", "name(number"),
    "shift(0.5) || reverse": ("shift(0.5) || reverse", "an empty step", "name(number"),
    "shift(1 + 1)": (UNREADABLE,),
    "shift(*[1])": (UNREADABLE,),
    # values out of range
    "shift(1.5)": ("'shift(1.5)'", "between 0 and 1", "1.5"),
    "mask(-0.1)": ("'mask(-0.1)'", "between 0 and 1", "-0.1"),
    "resample(2)": ("'resample(2)'", "between 0 and 1"),
    "reverse(7)": ("'reverse(7)'", "between 0 and 1", "7"),
    "speed()": ("'speed()'", "speed(1, 2, 4)"),
    "speed(0, 1)": ("'speed(0, 1)'", "positive"),
    "stretch(2, 1)": ("'stretch(2, 1)'", "ascend"),
    "duration(0, 1)": ("'duration(0, 1)'", "positive"),
    "volume(1.1, 0.9)": ("'volume(1.1, 0.9)'", "ascend"),
    "offset(-1)": ("'offset(-1)'", "seconds", "-1"),
    "pitch(48)": ("'pitch(48)'", "semitones", "48"),
    "fade(0.5, cubic)": ("'cubic'", "linear", "exponential", "logarithmic", "quarter_sine", "half_sine"),
    "mask(0.5, noize)": ("'noize'", "noise or a number"),
    "noise(blue)": ("'blue'", "white", "pink", "brown"),
    "noise(any, 20, 5)": ("ascend", "dB"),
}


@pytest.mark.parametrize("text", CASES)
def test_errors_name_the_step_and_say_what_would_do(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, TRANSFORMS, SCOPES)
    assert all(part in str(caught.value) for part in CASES[text]), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["resample", "resample()", "resample(0.5, 2)", "volume(1)", "fade(0.5, shap=linear)", "speed(library=2)",
     "shift(0.5, alpha=0.4)", "offset", "pitch(1, 2)"],
)  # fmt: skip
def test_a_wrong_number_of_arguments(text: str) -> None:
    """Quotes the step, counts what the person wrote (no self), and uses no words of Python's own calls."""
    with pytest.raises(RecipeError) as caught:
        parse(text, TRANSFORMS, SCOPES)
    words, name = str(caught.value), text.split("(")[0]
    assert words.startswith(repr(text)) and name in words.removeprefix(repr(text)), words
    assert "__init__" not in words and f".{name}" not in words and "3 were given" not in words, words


@pytest.mark.parametrize(
    "text",
    ["shift(a)", "shift(nan)", "shift('0.5')", "shift([0.5])", "shift(None)", "speed(fast)", "speed([1, 2])",
     "stretch(slow, 2)", "reverse(yes)", "offset(0.5s)", "volume(low, high)", "pitch(up)", "shift(1j)",
     "noise(5, 20)", "noise(white, low, 20)"],
)  # fmt: skip
def test_a_value_of_the_wrong_kind(text: str) -> None:
    """In words for whoever typed it, not in those of the comparison that failed."""
    with pytest.raises(RecipeError) as caught:
        parse(text, TRANSFORMS, SCOPES)
    assert text in str(caught.value)
    assert "instances of" not in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "text", ["speed(1e999)", "stretch(1, 1e999)", "offset(1e999)", "duration(1, 1e999)", "volume(1, 1e999)",
             "noise(white, 1, 1e999)", "shift(1e999)", "pitch(1e999)", "mask(0.5, 1e999)"]
)  # fmt: skip
def test_infinities_are_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse(text, TRANSFORMS, SCOPES)


# --- nothing is evaluated


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that exists only if somebody ran what a recipe said."""
    return tmp_path / "trap"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {0}')",
        "__import__('os')",
        "shift(__import__('os').system('touch {0}'))",
        "shift(open('{0}', 'w').write('x'))",
        "shift(alpha=open('{0}', 'w'))",
        "().__class__.__base__.__subclasses__()",
        "shift.__globals__",
        "shift(0.5)(open('{0}', 'w'))",
        "[open('{0}', 'w') for _ in '1']",
        "shift([open('{0}', 'w') for _ in '1'])",
        "lambda: open('{0}', 'w')",
        "shift((lambda: open('{0}', 'w'))())",
        "shift(f'{{open(chr(120))}}')",
        "shift(x := 0.5)",
        "shift(10 ** 10 ** 10)",
        'exec(\'open("{0}", "w")\')',
        "shift(0.5); open('{0}', 'w')",
        "shift(" + "(" * 500 + "0.5" + ")" * 501,
        "shift(0.5,\x00)",
    ],
)
def test_code_is_refused_and_not_run(text: str, trap: Path) -> None:
    text = text.format(trap)
    with pytest.raises(RecipeError):
        parse(text, TRANSFORMS, SCOPES)
    with pytest.raises(ConfigError):
        build(DataConfig, {"views": [{"temporal": text}]})
    assert not trap.exists()


@given(st.text(max_size=40))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with suppress(RecipeError):
        parse(text, TRANSFORMS, SCOPES)


@given(
    st.lists(st.sampled_from([*TRANSFORMS, "(", ")", "|", ":", ",", "0.5", "2", "=", "alpha", "video", " "]))
)
def test_any_words_are_a_recipe_or_a_recipe_error(tokens: list[str]) -> None:
    with suppress(RecipeError):
        parse("".join(tokens), TRANSFORMS, SCOPES)


# --- through configs


def test_a_config_error_says_where_it_stands() -> None:
    with pytest.raises(ConfigError) as caught:
        build(DataConfig, {"views": [{}, {"temporal": "resmple(0.5)"}]}, "data.")
    assert all(
        part in str(caught.value) for part in ("data.views.1", "'resmple(0.5)'", "did you mean 'resample'?")
    )


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({"views": [{"temporal": "shift(3)"}]}, ("views.0", "'shift(3)'", "between 0 and 1")),
        ({"views": [{"temporal": "pitch(1) | pitch(2)"}]}, ("views.0", "pitch", "once")),
        ({"views": [{"temporal": 3}]}, ("views.0.temporal", "string")),
        ({"views": [{"temporal": "reverse", "apply": "alinged"}]}, ("views.0.apply", "aligned", "unaligned")),
        ({"video": {"crop": "centr"}}, ("video", "did you mean 'centre'?")),
        ({"video": {"crop": "centre | three"}}, ("video", "one crop", "'centre | three'")),
        ({"video": {"crop": ""}}, ("video", "one crop")),
    ],
)
def test_other_sections_too(tree: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(DataConfig, tree)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_yaml_file_and_an_override(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("views:\n  - {temporal: 'speed(1, 2) | resmple(0.5)'}\n")
    with pytest.raises(ConfigError, match=r"'resmple\(0\.5\)'.*did you mean 'resample'"):
        build(DataConfig, read(path))
    views = json.dumps([{"temporal": "speed(1, 2) | resample(0.5)"}])
    assert len(build(DataConfig, read(path, [f"views={views}"])).views[0].steps) == 2


def test_crops_have_no_scopes() -> None:
    with pytest.raises(RecipeError, match="no scope"):
        parse("video: centre", CROPS)
