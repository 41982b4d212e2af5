"""The entities that are known are those of BIDS, and filter files name them as pybids does."""

from __future__ import annotations

import re

from bids.layout import Config
from bidsschematools.schema import load_schema

from bids_fcnreg.bids.names import DERIVED, FORMS, LABEL, NAMES, RAW


def test_entities_are_those_of_the_schema():
    schema = load_schema()
    entities = {entity.name: entity for entity in schema.objects.entities.values()}
    assert set(entities) <= set(NAMES)
    assert LABEL.pattern == schema.objects.formats.label.pattern.replace("a-zA-Z", "A-Za-z")
    for key, entity in entities.items():
        if key in RAW:
            assert (entity.get("format") == "index") == (
                key in FORMS and "[" in FORMS[key].pattern
            )
            if values := entity.get("enum"):
                assert all(FORMS[key].fullmatch(str(value)) for value in values), key


def test_raw_images_of_anatomy_have_raw_entities_only():
    schema = load_schema()
    keys = {name: entity.name for name, entity in schema.objects.entities.items()}
    for rule in schema.rules.files.raw.anat.values():
        for entity in rule.entities:
            assert keys[entity] in RAW and keys[entity] not in DERIVED


def test_names_in_filter_files_are_those_of_pybids():
    known = {**Config.load("bids").entities, **Config.load("derivatives").entities}
    for name, entity in known.items():
        if key := re.search(r"([a-z]+)-\(", entity.regex.pattern):
            assert NAMES[key[1]] == name
