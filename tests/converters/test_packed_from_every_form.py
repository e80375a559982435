"""The same images in every form people have ImageNet in: packed, they are the same labels and the same bytes."""

import pytest
from imagenet_forms import FORMS, make_pictures, open_as

from converters.packing import PackSettings, pack
from loaders.manifest import read_manifest
from loaders.packed_folder import open_packed


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """{form: its packed folder}, with two workers, so that archives are read by other processes than list them."""
    root = tmp_path_factory.mktemp("forms")
    for form, write in FORMS.items():
        splits = open_as(write(root / form, make_pictures()))
        pack(splits, root / f"{form}-packed", PackSettings(formats=("beton", "shards", "raw")), 2)
    return {form: root / f"{form}-packed" for form in FORMS}


def samples_of(folder, split, kind):
    """(label, bytes) of each sample, in an order that does not depend on how the source numbers them."""
    records = open_packed(folder, split, kind)
    return sorted((int(label), bytes(records.read(index))) for index, label in enumerate(records.labels))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["beton", "shards", "raw"])
def test_labels_and_bytes_are_the_same(packed, form, kind):
    pictures = make_pictures()
    for split, expected in (("train", pictures.expected_train()), ("val", pictures.expected_val())):
        found = samples_of(packed[form], split, kind)
        assert found == samples_of(packed["class folders"], split, kind)
        if kind != "raw":
            assert found == sorted((label, data) for _, label, data in expected)


def test_training_files_are_the_same_to_the_byte(packed):
    files = {(packed[form] / "train.beton").read_bytes() for form in FORMS}
    assert len(files) == 1


@pytest.mark.parametrize("form", ["Kaggle", "official archives"])
def test_classes_have_names_for_people(packed, form):
    manifest = read_manifest(packed[form])
    assert manifest.classes != manifest.class_names
    assert manifest.class_names == read_manifest(packed["Kaggle"]).class_names
