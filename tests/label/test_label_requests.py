"""What a client may ask of MONAI Label: names that are no paths, options that may be empty or unknown."""

import pytest

from kvseg_monai.errors import InputError
from kvseg_monai.label.requests import (
    NotFoundError,
    background_readers,
    cleaned,
    inference_readers,
    parse_options,
    refuse_name,
    status_of,
    training_readers,
)

EMPTY = (None, "", "  ", [], {}, [""], [[]], [None])
PATHS = ("", ".", "..", "../case", "/etc/passwd", "a/b", "a\\b", "case\0", "case\n", None, 5, ["case"], {})


@pytest.mark.parametrize("name", ["case0", "case 0", "scan..1", "…ü", "1.2.840.1", "-x"])
def test_a_plain_name(name):
    assert refuse_name(name, "image") == name


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_name(name):
    with pytest.raises(NotFoundError, match=r"^there is no image .* never a path$") as caught:
        refuse_name(name, "image")
    assert status_of(caught.value) == 404


@pytest.mark.parametrize("text", [None, "", " ", "{}", "null", "[]"])
def test_no_options_at_all(text):
    assert parse_options(text) == {}


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "1", "[" * 100_000])
def test_options_that_are_none(text):
    with pytest.raises(InputError, match="the params of the request are no JSON") as caught:
        parse_options(text)
    assert status_of(caught.value) == 400


@pytest.mark.parametrize("method", ["infer", "train", "batch_infer", "scoring"])
@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_option_counts_as_not_given_and_an_unknown_one_is_left_out(method, empty):
    readers = inference_readers() if method == "infer" else background_readers(method)
    request = {**dict.fromkeys(readers, empty), "client_id": "user-xyz", "nested": {"a": [{}]}, "model": "setr"}
    assert cleaned(request, readers, keep=["model"]) == {"model": "setr"}


def test_a_request_as_3d_slicer_sends_it():
    """Its table of options, in which every choice is a text, and what it adds."""
    meant = {"device": "cpu", "pretrained": True, "max_epochs": 50, "val_split": 0.2, "multi_gpu": True, "gpus": "all"}
    more = {"tracking": "None", "tracking_uri": "", "tracking_experiment_name": "", "run_id": "", "model_filename": ""}
    assert cleaned({**meant, **more, "client_id": "u"}, training_readers(["cpu"])) == {**meant, "tracking": "none"}
    meant = {"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}
    assert cleaned({**meant, "model_filename": ["model.pt", "b.pt"]}, inference_readers()) == {
        **meant,
        "model_filename": "model.pt",
    }


@pytest.mark.parametrize(
    ("name", "sent", "read"),
    [
        ("max_epochs", "2", 2),
        ("max_epochs", 2.0, 2),
        ("val_split", "-1", -1),
        ("val_split", 0, 0),
        ("pretrained", "False", False),
        ("pretrained", 0, False),
        ("gpus", 0, "0"),
        ("gpus", "0, 1", "0,1"),
        ("device", [["cpu"]], "cpu"),
        ("tracking", ["None", "mlflow"], "none"),
    ],
)
def test_a_value_in_another_form(name, sent, read):
    assert cleaned({name: sent}, training_readers()) == {name: read}


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("max_epochs", 0),
        ("max_epochs", 1.5),
        ("max_epochs", True),
        ("max_epochs", float("inf")),
        ("max_epochs", float("nan")),
        ("max_epochs", {"a": 1}),
        ("val_split", 1),
        ("val_split", -0.5),
        ("pretrained", "maybe"),
        ("gpus", {"a": 1}),
        ("gpus", "0;rm"),
        ("device", "no such"),
        ("tracking", "/etc/settings.json"),
        ("tracking_uri", "/somewhere/mlruns"),
        ("tracking_uri", "file:///somewhere"),
        ("run_id", 5),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name, sent):
    with pytest.raises(InputError, match=f"^the option {name} of the request is .*; it must be .* or empty for the"):
        cleaned({name: sent}, training_readers())


@pytest.mark.parametrize("sent", [{"images": ["../case"]}, {"model_filename": "../w.pt"}, {"label_tag": "/tmp"}])
def test_a_path_in_an_option_is_no_name(sent):
    with pytest.raises(NotFoundError, match="never a path"):
        cleaned(sent, background_readers("batch_infer"))
