"""Each benchmark in each of its forms, from where it is published to its samples."""

import json
from typing import Any

import pytest

from gald import paths
from gald.datasets import load_spec
from gald.download import transfer
from gald.download.run import download
from gald.prepare.run import prepare
from tests.unit.download.publishing import (
    FORMS,
    PREPARE,
    assert_made_alike,
    make_by_drawing,
    publish,
    section,
)

pytestmark = pytest.mark.usefixtures("repository")


@pytest.mark.parametrize(("name", "source"), FORMS)
def test_from_the_published_addresses_to_samples(
    name: str, source: str, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = make_by_drawing(name, source)
    spec = publish(site, load_spec(name, source), drawn[0], monkeypatch)
    download("full", name, section(source))
    prepare("full", name, PREPARE)
    assert_made_alike(spec, drawn, changed=set())
    listed = json.loads(paths.raw_json("full", name).read_text())["archives"]
    assert [one["sha256"] for one in listed] == [one["sha256"] for one in drawn[0]["archives"]]
    assert [one["source"] for one in listed] == [archive.urls[0] for archive in spec.archives]
    assert site.logins == any(archive.login is not None for archive in spec.archives)
    asked = len(site.asked)
    download("full", name, section(source))
    assert len(site.asked) == asked


def test_with_all_that_a_connection_can_do(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO-Stuff, of which no digest is published: what comes to an end is whole all the same."""
    monkeypatch.setattr(transfer, "TRIES", 9)
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    monkeypatch.setattr(transfer, "TIMEOUT", 1.0)
    drawn = make_by_drawing("coco_stuff10k", "v1.1")
    spec = publish(site, load_spec("coco_stuff10k"), drawn[0], monkeypatch)
    (page,) = site.pages.values()
    assert len(page.content) > 200_000
    page.faults = ["cut 70000", "503", "stall 70000", "416", "cut 70000", "shifted", "cut 70000", "whole"]
    download("full", "coco_stuff10k", section("v1.1"))
    prepare("full", "coco_stuff10k", PREPARE)
    assert_made_alike(spec, drawn, changed=set())
    ranges = [asked is not None for asked in site.ranges()]
    assert ranges == [False, True, True, True, False, True, False, True]  # twice what was there was of no use
    assert not page.faults
