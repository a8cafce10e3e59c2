"""The field's words in every text file of the repository: an old word fails with file, line and the word to use."""

import ast
import fnmatch
import re
import subprocess

from support import ROOT

WORDS = {  # what is searched for -> the word to use
    r"\bfindings?\b|header_finding": "check, problem",
    r"decode_apart|dicom[./]apart|\bapart (=|<)|\w_apart\b": "isolated, distinct",
    r"place_bundle|\bplaced\b|label[./]place\b": "install, installed",
    r"\blooking\b|\b_?look\(|\bLook\b(?! for)|\bSeen\b": "inspection, inspect",
    r"sound_cases|\bsound\b": "valid",
    r"still_to_do": "pending",
    r"whole_file": "atomic_write",
    r"\b([Tt]ells?|[Tt]old|telling)\b|\b(told|tells?)_|_(told|tells?)(?![a-z])": "report, record, say; distinguish",
    r"query_bias_rate": "query_bias_lr_scale",
    r"\bmissed\b|\binvented\b|\bMissed\b|\bInvented\b": "false negative, false positive",
    r"mlp_channels": "mlp_dim",
    r"channels of the tokens|token width|\bchannels: C\b": "hidden_size",
    r"handlers[./]bad_cases|[Bb]ad case\b": "invalid_cases, invalid case",
    r"input guard|transforms[./]guard": "input checks",
    r"\brivals?\b": "earlier score",
    r"\btwins?\b": "duplicate images",
    r"\btraits?\b|\bTRAITS\b": "attributes",
    r"\blonely\b": "single",
    r'"What becomes of\b': "Return ..., Handler that ..., Read ...",
}
EXCEPTIONS = {  # path -> why the old words stay
    "CHANGELOG.md": "says what was renamed",
    "*LICENSE": "a text of others",
    "kvseg_monai/utils/old_names.py": "the table of old names",
    "bundles/studies/*": "made by version 0.1.0, whose names they keep",
    "tests/artefacts/*": "made by version 0.1.0",
    "tests/test_compatibility.py": "tries the old names",
    "docs/compatibility.md": "the old names, for whoever meets them",
    "tests/test_words.py": "the words themselves",
}


def tracked_texts():
    """Yield path, relative to the repository, and lines of each text file that is tracked."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if any(fnmatch.fnmatch(name, pattern) for pattern in EXCEPTIONS):
            continue
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            yield name, content.decode("utf-8").splitlines()


def test_no_old_word_is_left():
    words = [(re.compile(pattern), new) for pattern, new in WORDS.items()]
    found = [
        f"{name}:{number}: {match[0]!r}, say {new}: {line.strip()[:100]}"
        for name, lines in tracked_texts()
        for number, line in enumerate(lines, start=1)
        for pattern, new in words
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


def test_each_old_word_would_be_found():
    """One pattern that matches nothing at all would keep the test above green for ever."""
    old = (
        "finding decode_apart place_bundle looking sound_cases still_to_do whole_file told query_bias_rate missed "
        'mlp_channels bad_case;channels of the tokens;input guard;rival twins traits lonely;"What becomes of cases;'
        "handlers.bad_cases"
    )
    assert [pattern for pattern in WORDS if not re.search(pattern, old)] == []


def test_every_exception_is_there():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [pattern for pattern in EXCEPTIONS if not fnmatch.filter(names, pattern)] == []


def docstrings():
    """Yield path, line and docstring of each module and of all that is defined in it without a leading underscore."""
    for folder in ("kvseg_monai", "data_prep"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    name = getattr(node, "name", "")
                    if not name.startswith("_") and (text := ast.get_docstring(node)):
                        yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


def test_docstrings_open_with_what_the_thing_is_or_does():
    """A clause that opens with a question word leaves the reader to find out what is returned or held."""
    question = re.compile(r"(What (?!to )|How |Where |Which |Whose |Who |Whether |Why )")
    found = [f"{where}: {text.splitlines()[0]}" for where, text in docstrings() if question.match(text)]
    assert not found, "\n".join(found)
