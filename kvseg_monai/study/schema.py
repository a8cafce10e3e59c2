"""Models of a study file and its split, for pydantic; the first mistake becomes one sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kvseg_monai.blocks import ATTENTION_KINDS
from kvseg_monai.data.datalist import SECTIONS
from kvseg_monai.errors import InputError
from kvseg_monai.study.checks import read_mapping, unknown


def _known_kind(kind: str) -> str:
    if kind not in ATTENTION_KINDS:
        raise InputError(unknown(kind, ATTENTION_KINDS))
    return kind


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


Text = Annotated[str, BeforeValidator(str)]  # in YAML, a name may look like a number or a date
Kind = Annotated[str, AfterValidator(_known_kind)]
Seed = Annotated[int, Field(strict=True, ge=0)]
UNKNOWN = ("extra_forbidden", "invalid_key")  # kinds of pydantic's mistakes
_NOTHING_IS_EMPTY = BeforeValidator(lambda found: {} if found is None else found)
Entries = Annotated[dict[Text, Any], _NOTHING_IS_EMPTY]


class Table(BaseModel):
    """A table of which every key is known; a field's description says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    LACKS: ClassVar[str] = "has no '{name}'"


class NetTable(Table):
    """A net of a study: the kinds of attention of our bundles, or another network and the bundle that trains it."""

    attention: list[Kind] | None = Field(None, description="give a list of kinds, such as [qkv, kv]")
    overrides: Entries = {}
    network: Entries | None = None
    bundle: str | None = Field(None, description="give the name of a bundle")

    @model_validator(mode="after")
    def _check_network(self) -> "NetTable":
        if self.network is not None and (not self.bundle or self.attention is not None):
            raise InputError("beside a 'network' name the 'bundle' that trains it, and no 'attention'")
        return self


class StudyFile(Table):
    """A study file as it is written; :class:`kvseg_monai.study.plan.Study` is what it means."""

    LACKS = "has no '{name}'; a study needs split, nets and seeds"

    dataset_dir: str | None = Field(None, description="give a folder")
    split: str = Field(min_length=1, description="give the file that names the patients of each section")
    output_dir: str | None = Field(None, description="give a folder")
    bundles_dir: str | None = Field(None, description="give a folder")
    notice: str | None = Field(None, description="give a sentence")
    overrides: Entries = {}
    nets: dict[Text, Annotated[NetTable, _NOTHING_IS_EMPTY]] = Field(min_length=1)
    seeds: Annotated[list[Seed], AfterValidator(_different)] = Field(
        min_length=1, description="give different whole numbers from 0 on, such as [0, 1, 2]"
    )
    reference: Kind = Field("qkv", description="give a kind of attention, such as qkv")
    margin: float = Field(
        0.01, strict=True, gt=0, lt=1, description="it must be a Jaccard difference between 0 and 1, such as 0.01"
    )


Patients = Annotated[list[Text], Field(min_length=1, description="give a list of patients")]


class SplitFile(Table):
    """The patients of each section; nobody may be in two."""

    LACKS = f"names no {{name}} patients; each of {', '.join(SECTIONS)} must list some"

    training: Patients
    validation: Patients
    test: Patients

    @model_validator(mode="after")
    def _check_patients(self) -> "SplitFile":
        seen: dict[str, str] = {}
        for section, patients in self:
            for patient in patients:
                if patient in seen:
                    raise InputError(
                        f"patient {patient} is in {seen[patient]} and in {section}; a patient may be in one list only "
                        "and once, else the score is too good: take it out of one"
                    )
                seen[patient] = section
        return self


Model = TypeVar("Model", bound=Table)


def read_table(path: Path, model: type[Model]) -> Model:
    """Read a YAML or JSON file that must be as a model says.

    Raises:
        InputError: naming the file, the place in it, what was found, and what is allowed.
    """
    found = read_mapping(path)
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise InputError(_sentence(error, found, path, model)) from None


def _sentence(error: ValidationError, found: Any, path: Path, model: type[Table]) -> str:
    mistakes = error.errors()
    # First a misspelt name, which may be why another is missing.
    mistake = next((mistake for mistake in mistakes if mistake["type"] in UNKNOWN), mistakes[0])
    place: list[str] = []
    for part in mistake["loc"]:
        if isinstance(found, dict):
            place, found = [*place, str(part)], found.get(part)
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return f"{_where(path, place)}: {cause}"
    *parents, name = place
    fields = (NetTable if parents else model).model_fields
    if mistake["type"] in UNKNOWN:
        return f"{_where(path, parents)}: {unknown(name, fields)}"
    if not found and name in fields and fields[name].is_required():
        return f"{path} {model.LACKS.format(name=name)}"
    if mistake["type"] in ("dict_type", "model_type"):
        return f"{_where(path, place)}: found {found!r}; it must be a table of keys and values"
    return f"{_where(path, parents)}: {name} is {found!r}; {fields[name].description}"


def _where(path: Path, place: Sequence[str]) -> str:
    return ", ".join([str(path), *place])
