"""`coaug doctor`: whatever a check does, its line comes out."""

from __future__ import annotations

import io
import os
import time

import pytest
from rich.console import Console

from coaug import doctor
from coaug.doctor import media
from coaug.doctor.check import Examination, Missing, examine


def fine() -> str:
    print("chatter of a library")
    return "all there"


def echo(text: str) -> str:
    return text


def breaks() -> str:
    raise ImportError("no module\nnamed so")


def lacks() -> str:
    raise Missing("3 MiB", "a better remedy")


def dies() -> str:
    os.abort()


def hangs() -> str:
    time.sleep(60)
    return ""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child process finds this file by name."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    for attempt in (fine, echo, breaks, lacks, dies, hangs):
        monkeypatch.setattr(attempt, "__module__", "test_doctor")


def test_what_works_says_what_it_found() -> None:
    check = examine(("it", Examination(fine, "do that", required=True)))
    assert (check.name, check.ok, check.detail, check.required) == ("it", True, "all there", True)
    assert examine(("it", Examination(echo, "do that", "an argument"))).detail == "an argument"


def test_an_exception_is_a_failed_check_in_one_line() -> None:
    check = examine(("it", Examination(breaks, "do that")))
    assert (check.ok, check.detail, check.remedy) == (False, "ImportError: no module named so", "do that")


def test_a_check_may_know_a_better_remedy() -> None:
    check = examine(("it", Examination(lacks, "do that")))
    assert (check.detail, check.remedy) == ("3 MiB", "a better remedy")


def test_a_crash_is_a_failed_check() -> None:
    check = examine(("it", Examination(dies, "do that")))
    assert not check.ok
    assert check.detail.startswith("crashed, status -6")
    assert check.remedy == "do that"


def test_a_hang_is_a_failed_check() -> None:
    check = examine(("it", Examination(hangs, "do that")), seconds=0.5)
    assert (check.ok, check.detail) == (False, "no answer after 0.5 s")


def run(monkeypatch: pytest.MonkeyPatch, **checks: Examination) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "GROUPS", {"group [x]": checks})
    screen = io.StringIO()
    return doctor.doctor(Console(file=screen, width=100)), screen.getvalue()


def test_missing_comforts_do_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = run(monkeypatch, good=Examination(fine, "-", required=True), bad=Examination(lacks, "-"))
    assert status == 0
    assert "group [x]" in text
    assert "works  good" in text
    assert "no     bad" in text
    assert "a better remedy" in text
    assert text.rstrip().endswith("ready")


def test_missing_necessities_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = run(monkeypatch, bad=Examination(breaks, "mend it", required=True))
    assert status == 1
    assert "fails  bad" in text
    assert "missing, and needed: bad" in text


def test_every_failure_has_a_remedy_and_every_name_fits() -> None:
    for checks in doctor.GROUPS.values():
        for name, examination in checks.items():
            assert examination.remedy
            assert "\n" not in examination.remedy
            assert len(name) <= 18


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "aac", "mp3"])
def test_ffmpeg_decoders_are_tried(codec: str) -> None:
    assert media.ffmpeg(codec) in ("8 frames decoded", "sound decoded")


def test_a_codec_that_does_not_exist_is_reported() -> None:
    check = examine(("x", Examination(media.ffmpeg, "do that", "no_such_codec")))
    assert not check.ok
    assert "no_such_codec" in check.detail


def test_the_graph_decodes_by_frame_number() -> None:
    assert examine(("vp9", media.DALI["vp9"])).ok
