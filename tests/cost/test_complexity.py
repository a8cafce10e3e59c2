"""Costs against hand formulas, the three formats, the README's table, and the sentences for wrong options."""

import csv
import io
import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from support import ROOT, run_here

from kvseg_monai.blocks import ATTENTION_KINDS, TransformerBlock, build_attention
from kvseg_monai.cost.complexity import Variant, count, main
from kvseg_monai.cost.counting import count_macs, peak_memory
from kvseg_monai.cost.table import BEGIN, END, FORMATS, split_readme, update_readme
from kvseg_monai.cost.timing import WARM_UP_ROUNDS, time_in_turn
from kvseg_monai.errors import InputError, run_command
from kvseg_monai.nets.cvt import PRESETS as CVT_PRESETS
from kvseg_monai.nets.setr import PRESETS as SETR_PRESETS
from kvseg_monai.utils.provenance import commit, machine

SIDE = 64
TINY = ["--size", "tiny", "--img-size", str(SIDE), "--repeats", "2"]


def tiny(net: str, decoder: str | None = None) -> Variant:
    return Variant(net, decoder, "tiny", SIDE)


# Multiply-accumulates, complete and of convolutions and linear maps


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("kind", "projections", "extra"),  # extra channels of query, key and value; products that make them
    [("qkv", 3, 0), ("kv", 2, 0), ("kv_pos", 2, 0), ("kv_rel", 2, 5 + 4), ("qk", 2, 0), ("k", 1, 0)],
)
def test_a_transformer_block_by_hand(kind, projections, extra, device):
    grid, hidden_size, heads, ratio = (5, 4), 24, 2, 3
    tokens = grid[0] * grid[1]
    with torch.device(device):
        attention = build_attention(kind, hidden_size, heads, grid=grid)
        block = TransformerBlock(attention, hidden_size=hidden_size, mlp_dim=ratio * hidden_size).eval()
        complete, conv_linear = count_macs(block, torch.zeros(1, tokens, hidden_size), grid)
    linear = (projections + 1 + 2 * ratio) * tokens * hidden_size**2  # and the output map, and the MLP
    products = 2 * tokens**2 * (hidden_size + heads * extra) + tokens * hidden_size * extra
    key_bias = tokens * 24 if kind == "kv_pos" else 0  # g = P w, of which 24 of 50 channels belong to the key
    assert conv_linear == linear
    assert complete == linear + products + key_bias


def test_convolutions_by_hand():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, stride=2, groups=8))
    macs = 9 * 3 * 8 * 10**2 + 9 * 8 * 4**2
    assert count_macs(layers, torch.zeros(1, 3, 10, 10)) == (macs, macs)


@pytest.mark.parametrize("variant", [tiny("SETR", "naive"), tiny("SETR", "pup"), tiny("TransUNet")], ids=str)
def test_what_kv_saves(variant):
    preset, tokens = SETR_PRESETS["tiny"], (SIDE // 16) ** 2
    layers, hidden_size = preset["num_layers"], preset["hidden_size"]  # TransUNet's transformer is the same
    counts = {kind: count(variant, kind) for kind in ATTENTION_KINDS}
    for kind, projections in {"kv": 1, "kv_pos": 1, "qk": 1, "k": 2}.items():
        saved = counts["qkv"]["macs_conv_linear"] - counts[kind]["macs_conv_linear"]
        assert saved == projections * layers * tokens * hidden_size**2
    assert counts["qkv"]["parameters"] - counts["kv"]["parameters"] == layers * (hidden_size**2 + hidden_size)
    attention = {kind: c["macs_complete"] - c["macs_conv_linear"] for kind, c in counts.items()}
    assert (
        attention["qkv"] == attention["kv"] == attention["qk"] == attention["k"] == layers * 2 * tokens**2 * hidden_size
    )
    assert attention["kv_pos"] - attention["kv"] == layers * tokens * 24


def test_cvt_attends_to_a_quarter_of_the_tokens():
    """The key is projected at every token where it is the query too, so kv saves the projection at stride 2."""
    stages = CVT_PRESETS["tiny"]["stages"]
    saved = attended = 0
    for hidden_size, layers, stride in zip(stages["hidden_size"], stages["num_layers"], (4, 8, 16), strict=True):
        tokens = (SIDE // stride) ** 2
        saved += layers * tokens // 4 * (hidden_size**2 + 9 * hidden_size)
        attended += layers * 2 * tokens * tokens // 4 * hidden_size
    qkv, kv = (count(tiny("CvT"), kind) for kind in ("qkv", "kv"))
    assert qkv["macs_complete"] - qkv["macs_conv_linear"] == kv["macs_complete"] - kv["macs_conv_linear"] == attended
    assert qkv["macs_complete"] - kv["macs_complete"] == saved


# Memory and time


def test_peak_memory_by_hand():
    layers = torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.ReLU(), torch.nn.Linear(200, 50)).eval()
    tokens = torch.rand(64, 100)
    with torch.no_grad():
        assert peak_memory(lambda: layers(tokens)) == 4 * 64 * (200 + 200)
        assert peak_memory(lambda: layers(tokens)) == 4 * 64 * (200 + 200)  # the first time leaves nothing behind
        assert peak_memory(lambda: None) == 0


def test_peak_memory_of_the_collapsed_kv_pos_has_no_square_tensor():
    side, hidden_size = 24, 32
    kv, kv_pos = (build_attention(kind, hidden_size, 2, grid=(side, side)).eval() for kind in ("kv", "kv_pos"))
    tokens = torch.rand(1, side**2, hidden_size)
    with torch.no_grad():
        more = peak_memory(lambda: kv_pos(tokens, (side, side))) - peak_memory(lambda: kv(tokens, (side, side)))
    assert more < 4 * side**4 / 2  # bytes of N x N numbers


def test_tasks_take_turns():
    order = []
    tasks = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = time_in_turn(tasks, rounds=3, title="turns")
    assert {name: values.shape for name, values in seconds.items()} == dict.fromkeys("abc", (3,))
    rounds = ["".join(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert len(rounds) == WARM_UP_ROUNDS + 3
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1


# The command


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    """What one run prints as JSON; `against` is measured although it is not asked for."""
    line = [sys.executable, "-m", "kvseg_monai.complexity", *TINY, "--nets", "SETR", "CvT", "--attention", "kv_rel"]
    line += ["kv", "--decoder", "mla", "--format", "json"]
    folder = tmp_path_factory.mktemp("elsewhere")
    run = run_here(line, folder)
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def test_every_network_and_kind_has_a_row(result):
    rows = [(row["network"], row["attention"]) for row in result["rows"]]
    assert rows == [(net, kind) for net in ("SETR mla tiny", "CvT tiny") for kind in ("qkv", "kv_rel", "kv")]
    assert result["repeats"] == 2
    assert result["command"].startswith("python -m kvseg_monai.complexity --size tiny")
    assert result["torch"] == torch.__version__


def test_ratios_of_the_base_are_one_and_others_are_quotients(result):
    base = result["rows"][0]
    ratios = [name for name in base if "_ratio" in name]
    assert len(ratios) == 9
    assert {name: base[name] for name in ratios} == dict.fromkeys(ratios, 1)
    for row in result["rows"][:3]:
        for name in ("parameters", "macs_complete", "macs_conv_linear", "memory_mib"):
            assert row[f"{name}_ratio"] == pytest.approx(row[name] / base[name])
        assert row["latency_ratio_low"] <= row["latency_ratio"] <= row["latency_ratio_high"]
        assert row["memory_mib"] == row["weights_mib"] + row["activations_mib"]
        assert row["gemm_share"] > 0


def test_csv_holds_what_json_holds(result):
    table = list(csv.DictReader(io.StringIO(FORMATS["csv"](result))))
    source = {name: value for name, value in result.items() if name != "rows"}
    expected = [{name: str(value) for name, value in {**row, **source}.items()} for row in result["rows"]]
    assert table == expected


def test_markdown_is_a_table_with_its_source(result):
    lines = FORMATS["md"](result).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len(cells) == 2 + len(result["rows"])
    assert {len(row) for row in cells} == {9}
    assert set(cells[1]) == {"---", "---:"}
    row = result["rows"][1]
    parameters = f"{row['parameters'] / 1e6:.1f} ({row['parameters_ratio']:.3f})"
    assert cells[3][:3] == ["SETR mla tiny", "`kv_rel`", parameters]
    for source in (result["command"], f"commit {result['commit']}", result["machine"], f"torch {torch.__version__}"):
        assert source in lines[-1]


def test_the_table_goes_into_a_readme(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_bytes(f"before\r\n{BEGIN}\nold table\n{END}\r\nafter\n".encode())
    main([*TINY, "--nets", "SETR", "--decoder", "naive", "--attention", "kv", "--readme", str(readme)])
    table = capsys.readouterr().out
    assert readme.read_bytes().decode() == f"before\r\n{BEGIN}\n{table}{END}\r\nafter\n"
    update_readme(readme, table.rstrip("\n"))
    assert readme.read_bytes().decode() == f"before\r\n{BEGIN}\n{table}{END}\r\nafter\n"


def test_our_readme_has_a_place_for_the_table():
    before, after = split_readme(ROOT / "README.md")
    assert "## What it costs" in before
    assert after.startswith(END)


@pytest.mark.parametrize(
    "text", ["no marker", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", f"{BEGIN}{BEGIN}{END}"]
)
def test_a_readme_without_markers_is_refused_and_left_alone(text, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(InputError, match=r"README.md does not hold the lines <!-- complexity:begin --> and"):
        main([*TINY, "--readme", str(readme)])
    assert readme.read_text() == text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--nets", "UNet"], "--nets is 'UNet'; it must be one of SETR, TransUNet, CvT"),
        (["--attention", "vk"], "attention is 'vk'; it must be one of qkv, kv, kv_pos, kv_rel, qk, k"),
        (["--against", "vk"], "attention is 'vk'; it must be one of"),
        (["--size", "huge"], "size is 'huge'; it must be one of tiny, small, base"),
        (["--decoder", "unet"], "decoder is 'unet'; it must be one of naive, pup, mla"),
        (["--nets", "CvT", "--decoder", "pup"], "--decoder is given, which is for SETR, but --nets leaves SETR out"),
        (["--format", "html"], "--format is 'html'; it must be one of md, csv, json"),
        (["--device", "abacus"], "--device is 'abacus'; it must be one of cpu"),
        (["--img-size", "100"], "img_size is 100 x 100; each side must be a multiple of 16"),
        (["--img-size", "0"], "img_size is 0; it must be one side"),
        (["--repeats", "0"], "--repeats is 0; it must be 1 or more"),
        (["--readme", "nowhere.md"], "nowhere.md cannot be read .*give a Markdown file"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        main([*TINY, *options])


def test_a_wrong_option_ends_the_command_with_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command(partial(main, ["--attention", "vk"]))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: attention is 'vk'; it must be one of qkv, kv, kv_pos, kv_rel, qk, k\n"


def test_the_literal_form_is_benchmarked():
    result = run_here([sys.executable, "-m", "benchmark_literal", "--side", "4", "--repeats", "1"], ROOT / "tests")
    assert result.returncode == 0, result.stderr
    printed = result.stdout
    assert [line.split(":")[0] for line in printed.splitlines()[:2]] == ["core", "layer"]
    assert "16 tokens, hidden_size 768, 12 heads" in printed


def test_provenance_names_commit_and_machine():
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=False)
    assert (commit() or "").removesuffix("-dirty") == head.stdout.strip()
    assert f"torch threads: {torch.get_num_threads()}" in machine()
