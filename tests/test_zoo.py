"""Which pretrained networks are found: at quick without a data folder only what the package carries."""

from tl_helpers import zoo


def test_quick_finds_the_embedded_weights_alone(monkeypatch, capsys):
    monkeypatch.delenv("TL_DATA", raising=False)
    monkeypatch.setenv("TL_SCALE", "quick")
    found = zoo.at_hand()
    assert list(found) == ["VGG16 from Tiny ImageNet"]
    assert found["VGG16 from Tiny ImageNet"].build(resolution=32).output_shape == (None, 512)
    said = capsys.readouterr().out
    assert "MobileNet 1.0 from ImageNet: not here (imagenet-q8-folded: TL_DATA is not set" in said
    assert "the quick scale downloads nothing" in said


def test_a_data_folder_without_the_file_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TL_DATA", str(tmp_path))
    monkeypatch.setenv("TL_SCALE", "quick")
    assert zoo.at_hand(["MobileNet 0.5 from ImageNet"]) == {}
    assert "not in TL_DATA" in capsys.readouterr().out


def test_every_wanted_network_has_a_spec():
    for backbone, choices in zoo.WANTED.values():
        assert set(choices) <= set(zoo.backbones.spec(backbone).weights)
