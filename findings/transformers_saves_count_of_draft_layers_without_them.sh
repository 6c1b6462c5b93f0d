#!/bin/sh
# Loading a Qwen3.5 checkpoint and saving it again drops its multi-token-prediction layers (`mtp.*`) without a warning, and the config keeps their count: what
# reads `mtp_num_hidden_layers` of a fine-tuned or converted checkpoint expects a draft head that is not there. Needs: python3 with venv, pip, disk
# for torch. Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be tried.
set -eu
VERSION=${1:-5.23.0}
TORCH=${2:-2.13.0}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/python" -m pip install --quiet --no-compile "transformers==$VERSION" "torch==$TORCH" >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

cat >"$folder/try.py" <<'PY'
import json, sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3_5ForCausalLM, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, Qwen3_5TextConfig

def tensors_and_count(folder):
    """How many tensors of the draft head the file has, and how many of its layers the config states."""
    count = json.loads((folder / "config.json").read_text()).get("mtp_num_hidden_layers")
    return sum(name.startswith("mtp.") for name in load_file(folder / "model.safetensors")), count

small = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2,
    mtp_num_hidden_layers=1,
)
sparse = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16)
as_told = True
for model in (Qwen3_5ForCausalLM(Qwen3_5TextConfig(**small)), Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**small, **sparse))):
    name = type(model).__name__
    first, second = (Path(sys.argv[1]) / f"{name}{place}" for place in ("", "_again"))
    model.save_pretrained(first)
    given = load_file(first / "model.safetensors")
    draft = {"mtp.fc.weight": torch.zeros(32, 64), "mtp.norm.weight": torch.zeros(32)}  # stands for a whole head: the loader goes by the prefix
    save_file(given | draft, first / "model.safetensors", metadata={"format": "pt"})
    AutoModelForCausalLM.from_pretrained(first).save_pretrained(second)
    before, after = tensors_and_count(first), tensors_and_count(second)
    print(f"seen: {name}: before {before[0]} mtp tensors and mtp_num_hidden_layers {before[1]}, after {after[0]} and {after[1]}")
    as_told &= before == (2, 1) and after == (0, 1)
sys.exit(0 if as_told else 1)
PY

echo "version: transformers $VERSION, torch $TORCH, $(python3 --version)"
echo "behaviour: from_pretrained and save_pretrained drop the tensors mtp.*, keep mtp_num_hidden_layers, and warn of neither"
status=0
HOME=$folder HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/try.py" "$folder" 2>"$folder/warnings" || status=$?
grep -q Traceback "$folder/warnings" && cat "$folder/warnings" >&2 && exit 2
echo "seen: $(grep -ci "mtp\|unexpected" "$folder/warnings" || true) warnings that name them"
! grep -qi "mtp\|unexpected" "$folder/warnings" || status=1
exit $status
