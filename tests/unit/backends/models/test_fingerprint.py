"""The fingerprint holds everything in a model's files that changes a vector, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semel.backends.models.fingerprint import Described
from semel.backends.models.head import activation_of
from semel.errors import BadInputError, ModelLoadError
from semel.values.model import Precision
from tests.support.model_files import source, write_files, write_model, write_sentence_model


def described(folder: Path | str, **entry: Any) -> Described:
    return source(folder, **entry).described


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with CLS pooling, a projection, normalised vectors and prompts."""
    return write_sentence_model(
        tmp_path / "model",
        ("Pooling", {"pooling_mode": "cls"}),
        ("Dense", {"out_features": 5}),
        ("Normalize", {}),
        files={
            "2_Dense/model.safetensors": b"projection",
            "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
            "config_sentence_transformers.json": {"prompts": {"query": "find: "}, "default_prompt_name": None},
        },
    )


def test_the_files_define_the_space(folder: Path) -> None:
    found = described(folder)
    spec = found.spec
    assert (found.dim, found.prompts) == (5, {"": "", "query": "find: "})
    assert (spec.kind, spec.normalize, spec.prompt, spec.max_tokens) == ("embed", True, "", 32)
    assert (spec.precision, spec.truncate_side) == (Precision.FULL, "right")
    assert [kind for kind, _ in json.loads(spec.pooling)] == ["Pooling", "Dense", "Normalize"]


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        ("model.safetensors", b"other", "weights"),
        ("2_Dense/model.safetensors", b"other", "weights"),
        ("tokenizer.json", {"words": 2}, "tokenizer"),
        ("special_tokens_map.json", {"pad_token": "x"}, "tokenizer"),
        ("1_Pooling/config.json", {"pooling_mode": "mean"}, "pooling"),
        ("sentence_bert_config.json", {"max_seq_length": 16}, "max_tokens"),
        ("sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True}, "architecture"),
        ("adapter_config.json", {"r": 8}, "architecture"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "find: "}, "default_prompt_name": "query"},
            "prompt",
        ),
    ],
)
def test_a_file_that_changes_a_vector_changes_its_field(folder: Path, file: str, content: Any, field: str) -> None:
    before = described(folder).spec
    write_files(folder, {file: content})
    after = described(folder).spec
    assert getattr(after, field) != getattr(before, field)


@pytest.mark.parametrize(
    "file", ["README.md", "onnx/model.safetensors", "2_Dense/tokenizer.json", "modeling.py", "chat_template.jinja"]
)
def test_other_files_change_nothing(folder: Path, file: str) -> None:
    before = described(folder).spec
    write_files(folder, {file: "text"})
    assert described(folder).spec == before


@pytest.mark.parametrize("changes", [{"transformers_version": "9"}, {"torch_dtype": "float16"}, {"use_cache": False}])
def test_settings_that_change_no_vector_change_nothing(folder: Path, changes: dict[str, Any]) -> None:
    before = described(folder).spec
    config = json.loads((folder / "config.json").read_text())
    write_files(folder, {"config.json": {**config, **changes}})
    assert described(folder).spec == before


def test_the_folder_does_not_matter(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert described(tmp_path / "elsewhere") == described(folder)


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ({"max_tokens": 7}, lambda found: found.spec.max_tokens == 7),
        ({"normalize": False}, lambda found: found.spec.normalize is False),
        ({"precision": Precision.INT8}, lambda found: found.spec.precision == Precision.INT8),
        ({"pooling": "mean"}, lambda found: '"mean"' in found.spec.pooling),
        ({"prompts": {"query": "mine: "}}, lambda found: found.prompts == {"": "", "query": "mine: "}),
        ({"prompts": {"other": "x"}}, lambda found: found.prompts == {"": "", "query": "find: ", "other": "x"}),
        ({"prompts": {"": "always: "}}, lambda found: found.spec.prompt == "always: "),
    ],
)
def test_the_entry_goes_before_the_files(
    folder: Path, entry: dict[str, Any], read: Callable[[Described], bool]
) -> None:
    assert read(described(folder, **entry))


def test_stored_quantised_weights_have_their_own_precision_whatever_the_entry(tmp_path: Path) -> None:
    write_model(tmp_path, quantization={"bits": 4, "group_size": 64})
    assert described(tmp_path, precision=Precision.FULL).spec.precision == Precision.INT4


def test_code_of_the_author_counts_only_where_it_runs(folder: Path) -> None:
    write_files(folder, {"modeling.py": "x = 1"})
    trusted = described(folder, trust_remote_code=True).spec
    write_files(folder, {"modeling.py": "x = 2"})
    assert described(folder, trust_remote_code=True).spec != trusted
    assert described(folder).spec.architecture != trusted.architecture


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelLoadError, match=r"has no weights \(\*\.safetensors, \*\.bin\)"):
        described(folder)


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "Qwen3ForCausalLM"])
def test_a_model_with_a_scoring_head_is_a_cross_encoder(tmp_path: Path, architecture: str) -> None:
    write_model(tmp_path, architectures=[architecture])
    found = described(tmp_path, kind="cross-encoder")
    assert (found.dim, found.spec.kind) == (1, "cross-encoder")


@pytest.mark.parametrize("architectures", [["BertModel"], ["BertForMaskedLM"], [], None])
def test_a_model_without_a_scoring_head_is_no_cross_encoder(tmp_path: Path, architectures: Any) -> None:
    write_model(tmp_path, architectures=architectures)
    with pytest.raises(ModelLoadError, match="no trained scoring head, and semel does not initialise one at random"):
        described(tmp_path, kind="cross-encoder")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", "another template"),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_files_that_change_only_a_score_count_for_cross_encoders(tmp_path: Path, file: str, content: Any) -> None:
    write_model(tmp_path, architectures=["BertForSequenceClassification"])
    before = described(tmp_path).spec, described(tmp_path, kind="cross-encoder").spec
    write_files(tmp_path, {file: content})
    assert described(tmp_path).spec == before[0]
    assert described(tmp_path, kind="cross-encoder").spec != before[1]


IDENTITY = "torch.nn.modules.linear.Identity"


def activation(folder: Path, library: dict[str, Any] | None = None, **config: Any) -> str:
    files = {} if library is None else {"config_sentence_transformers.json": library}
    write_model(folder, files=files, architectures=["BertForSequenceClassification"], **config)
    return activation_of(source(folder, kind="cross-encoder"))


def test_a_model_that_names_no_activation_has_a_sigmoid(tmp_path: Path) -> None:
    assert activation(tmp_path) == "Sigmoid"


@pytest.mark.parametrize(
    ("library", "config"),
    [
        ({"activation_fn": IDENTITY}, {}),
        (None, {"sentence_transformers": {"activation_fn": IDENTITY}}),
        (None, {"sbert_ce_default_activation_function": IDENTITY}),
        ({}, {"sentence_transformers": None, "sbert_ce_default_activation_function": "Identity"}),
    ],
)
def test_each_version_of_the_library_writes_the_activation_elsewhere(
    tmp_path: Path, library: dict[str, Any] | None, config: dict[str, Any]
) -> None:
    assert activation(tmp_path, library, **config) == "Identity"


def test_the_newest_place_of_the_activation_wins(tmp_path: Path) -> None:
    library = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    assert activation(tmp_path, library, sentence_transformers={"activation_fn": IDENTITY}) == "Tanh"


def test_another_activation_is_refused_by_name(tmp_path: Path) -> None:
    library = {"activation_fn": "torch.nn.modules.activation.Softplus"}
    why = "model 'm' turns its logits into scores with Softplus, and semel computes only Identity, Sigmoid, Tanh; set"
    with pytest.raises(ModelLoadError, match=why):
        activation(tmp_path, library)
    with pytest.raises(ModelLoadError, match=why):
        described(tmp_path, kind="cross-encoder")
    assert described(tmp_path).spec.kind == "embed", "a model that scores nothing needs no activation"


def test_the_fingerprint_of_a_cross_encoder_says_that_logits_are_stored_and_how_they_become_scores(
    tmp_path: Path,
) -> None:
    activation(tmp_path, {"activation_fn": "torch.nn.modules.activation.Tanh"})
    rule = json.loads(described(tmp_path, kind="cross-encoder").spec.pooling)
    assert (rule["activation"], rule["stored"]) == ("Tanh", "logit")


def test_a_fake_cross_encoder_has_the_activation_of_its_options() -> None:
    specs = [described(f"fake:{options}", kind="cross-encoder").spec for options in ("", "?activation=Sigmoid")]
    assert [json.loads(spec.pooling)["activation"] for spec in specs] == ["Identity", "Sigmoid"]


def test_a_fake_model_is_described_by_its_options() -> None:
    found = described("fake:?dim=5&weights=b&max_tokens=9")
    assert (found.dim, found.spec.weights, found.spec.max_tokens) == (5, "fake-b-5", 9)
    assert found.spec != described("fake:?dim=5&weights=a&max_tokens=9").spec
    assert described("fake:", kind="cross-encoder").dim == 1
    with pytest.raises(BadInputError, match="no option"):
        described("fake:?nothing=1")
